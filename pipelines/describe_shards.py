"""What a data set holds, for people and (as JSON) for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import FIELDS, load_state
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.errors import IncompleteError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from pipelines.counted_vocabulary import describe_counting

#: Phrases shown of a vocabulary.
SHOWN_PHRASES = 30


def describe_data_set(out: str) -> dict[str, Any]:
    """All that is known of the data set `out`, finished or not. Raises `InputError` where there is nothing of one."""
    store = Store.at(out)
    facts: dict[str, Any] = {"root": store.root}
    if store.exists(layout.PLAN):
        plan = load_plan(store)
        facts["plan"] = {"images": plan.images, "shards": plan.shards, "faults": plan.faults} | {
            "parts": [part.to_json() for part in plan.parts]
        }
        facts["fields"] = {
            name: described for name in FIELDS if (described := _field(store, name, plan.shards)) is not None
        }
    if store.exists(layout.CAPTIONS):
        captions = CaptionStore.load(store)
        facts["captions"] = {
            "counts": captions.counts,
            "buckets": captions.buckets,
            "configuration": captions.configuration,
        }
    if store.exists(layout.PHRASE_VOCAB):
        vocabulary = PhraseVocabulary.load(store.path(layout.PHRASE_VOCAB))
        shown = zip(vocabulary.phrases[:SHOWN_PHRASES], vocabulary.sentences, strict=False)
        facts["phrase_vocab"] = {
            "phrases": len(vocabulary),
            "configuration": dict(vocabulary.configuration),
            "most_frequent": [{"phrase": list(words), "sentences": count} for words, count in shown],
        }
    try:
        manifest = load_manifest(store)
        facts["published"] = {name: manifest[name] for name in ("samples", "shards", "digest")} | {
            "unmatched": manifest["captions"]["unmatched"]
        }
    except IncompleteError:
        facts["published"] = None
    if len(facts) == 2:
        raise InputError(
            f"there is no data set at {out}", "Give the output folder of extract-regions or build-phrase-vocab."
        )
    return facts


def _field(store: Store, name: str, shards: int) -> dict[str, Any] | None:
    state = load_state(store, name)
    if state is None:
        return None
    found = (read_receipt(store, name, shard) for shard in range(shards))
    receipts = [receipt for receipt in found if receipt is not None and receipt.configuration_digest == state.digest]
    counts: dict[str, int] = {}
    totals: dict[str, int] = {}
    for receipt in receipts:
        for sums, part in ((counts, receipt.counts), (totals, receipt.totals)):
            for what, count in part.items():
                sums[what] = sums.get(what, 0) + count
    return {
        "shards_done": len(receipts),
        "shards": shards,
        "generation": state.generation,
        "counts": counts,
        "totals": totals,
        "bytes": sum(receipt.tar.bytes for receipt in receipts),
        "configuration": state.configuration,
    }


def render(facts: dict[str, Any]) -> Group:
    """`describe_data_set`'s facts as tables."""
    parts: list[Any] = [Text(facts["root"], style="bold")]
    summary = Table.grid(padding=(0, 2))
    if plan := facts.get("plan"):
        inputs = ", ".join(str(part["source"].get("images")) for part in plan["parts"])
        summary.add_row("plan", f"{plan['images']:,} images in {plan['shards']:,} shards from {inputs}")
    for name, field in facts.get("fields", {}).items():
        faults = {what: count for what, count in field["counts"].items() if what not in ("inputs", "ok")}
        totals = ", ".join(f"{count:,} {what}" for what, count in field["totals"].items())
        done = f"{field['shards_done']:,} of {field['shards']:,} shards, {field['counts'].get('ok', 0):,} ok"
        done += f", {totals}, {field['bytes'] / 1e6:,.1f} MB"
        summary.add_row(name, done)
        if faults:
            summary.add_row("", "faults: " + ", ".join(f"{what} {count:,}" for what, count in sorted(faults.items())))
        if detector := field["configuration"].get("detector"):
            summary.add_row("", "detector: " + _settings(detector))
        if imported := field["configuration"].get("import"):
            summary.add_row("", "imported: " + _settings(imported))
    if captions := facts.get("captions"):
        summary.add_row("captions", ", ".join(f"{count:,} {what}" for what, count in captions["counts"].items()))
        summary.add_row("", "parser: " + _settings(captions["configuration"].get("parser")))
    if vocabulary := facts.get("phrase_vocab"):
        counting = vocabulary["configuration"]
        least, unique = counting.get("min_sentences"), counting.get("unique")
        of_unique = f" of {unique:,} unique, in at least {least:,} texts" if least and unique is not None else ""
        summary.add_row("phrases", f"{vocabulary['phrases']:,}{of_unique}")
        if counted_on := describe_counting(counting):
            summary.add_row("", f"counted on {counted_on}")
    if published := facts["published"]:
        samples = f"{published['samples']:,} samples, {published['unmatched']:,} captions met no image"
        summary.add_row("published", samples)
    else:
        summary.add_row("published", "not yet: `mvptr-data write-shards` does it")
    parts.append(summary)
    if vocabulary and vocabulary["most_frequent"]:
        frequent = Table("rank", "phrase", "texts", title="most frequent phrases", title_justify="left", box=None)
        for rank, entry in enumerate(vocabulary["most_frequent"]):
            frequent.add_row(str(rank), Text(" | ".join(entry["phrase"])), _count(entry["sentences"]))
        parts += ["", frequent]
    return Group(*parts)


def _count(number: int | None) -> str:
    """The authors' vocabulary has none."""
    return "?" if number is None else f"{number:,}"


def _settings(configuration: Any) -> str:
    """A configuration in one line; digests shortened."""
    if not isinstance(configuration, dict):
        return str(configuration)[:80]
    return ", ".join(
        f"{name} {str(value)[:12] if len(str(value)) == 64 else value}" for name, value in configuration.items()
    )

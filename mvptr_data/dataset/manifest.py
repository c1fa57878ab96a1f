"""The manifest: what the data set is now.

`write-shards` publishes it after the index (`index.py`) and the samples in brief (`samples.py`). Readers open what they name and
nothing else, so files of a newer generation, or of a run still under way, never mix into a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import FIELDS, OK
from mvptr_data.dataset.forms import COUNT, OBJECT, ORDINAL, TEXT, Each, Form, check_form
from mvptr_data.dataset.index import write_index
from mvptr_data.dataset.plan import Plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.samples import ShardSamples, write_samples
from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest

_REMEDY = "Run `mvptr-data verify --repair`, or `mvptr-data write-shards` again."
_FIELD: Form = {
    "configuration": OBJECT,
    "configuration_digest": TEXT,
    "shards": ORDINAL,
    "counts": Each(COUNT, ("inputs", OK)),
    "totals": Each(COUNT),
    "bytes": COUNT,
    "receipts": TEXT,
}
_MANIFEST: Form = {
    "plan": TEXT,
    "images": COUNT,
    "shards": ORDINAL,
    "samples": COUNT,
    "fields": dict.fromkeys(FIELDS, _FIELD),
    "order": {"files": dict.fromkeys(layout.SAMPLE_FILES, TEXT), "places": TEXT, "digest": TEXT},
    "index": {"name": TEXT, "sha256": TEXT},
    "captions": {"digest": TEXT, "configuration": OBJECT, "counts": Each(COUNT), "unmatched": COUNT},
    "phrase_vocab": {"name": TEXT, "sha256": TEXT, "phrases": COUNT, "digest": TEXT},
}


def publish(
    store: Store,
    plan: Plan,
    receipts: Sequence[Receipt],
    *,
    configurations: dict[str, dict[str, Any]],
    samples: Iterable[ShardSamples],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write index, samples and manifest for these receipts (every field, every shard); returns the manifest.

    `configurations` by field; `samples` of every shard in order (`shard_samples`); `facts` are further entries. Until all files
    are whole, and where `samples` raises, what was published before stays. Call only while holding the lock of the text.
    """
    whole = tuple(f"{name}." for name in (layout.INDEX, *layout.SAMPLE_FILES, layout.MANIFEST))
    store.remove_temporaries("", lambda base: base.startswith(whole))  # of a run that was killed while it published
    with store.together() as staged:  # while the samples are gathered, readers read what was published before
        order, count = write_samples(staged, samples)
        write_index(staged, receipts)
        manifest = {
            "version": layout.version("manifest"),
            "plan": plan.digest,
            "images": plan.images,
            "shards": plan.shards,
            "samples": count,
            "fields": {
                name: _field_entry([r for r in receipts if r.field == name], configuration)
                for name, configuration in configurations.items()
            },
            "order": order,
            "index": {"name": layout.INDEX, "sha256": staged.sha256(layout.INDEX)},
            **facts,
        }
        manifest["digest"] = digest(manifest)
        staged.write_json(layout.MANIFEST, manifest)
    return manifest


def published_facts(
    store: Store, captions: CaptionStore, vocabulary: PhraseVocabulary, name: str, unmatched: int
) -> dict[str, Any]:
    """What a manifest says of its captions and of its vocabulary, whose file is `name`."""
    return {
        "captions": {
            "digest": captions.digest,
            "configuration": captions.configuration,
            "counts": captions.counts,
            "unmatched": unmatched,
        },
        "phrase_vocab": {
            "name": name,
            "sha256": store.sha256(name),
            "phrases": len(vocabulary),
            "digest": vocabulary.digest,
        },
    }


def load_manifest(store: Store) -> dict[str, Any]:
    """The manifest, its digest checked. Raises `IncompleteError`, `FormatVersionError`, `DamagedFileError`."""
    where = store.path(layout.MANIFEST)
    try:
        manifest: dict[str, Any] = store.read_json(layout.MANIFEST, _REMEDY)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{store.root} has no manifest", f"Run `mvptr-data write-shards {store.root}` first."
        ) from error
    layout.check_version("manifest", manifest.get("version"), where)
    if digest({name: value for name, value in manifest.items() if name != "digest"}) != manifest.get("digest"):
        raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
    check_form(manifest, _MANIFEST, where, _REMEDY)
    if unknown := sorted(manifest["fields"].keys() - FIELDS.keys()):
        raise DamagedFileError(f"{where} names {unknown[0]!r} as a field", _REMEDY)
    if not layout.is_published_vocabulary(name := manifest["phrase_vocab"]["name"]):
        raise DamagedFileError(f"{where} names {name!r} as its phrase vocabulary", _REMEDY)
    return manifest


def _field_entry(receipts: Sequence[Receipt], configuration: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    totals: dict[str, int] = {}
    for receipt in receipts:
        for sums, part in ((counts, receipt.counts), (totals, receipt.totals)):
            for name, value in part.items():
                sums[name] = sums.get(name, 0) + value
    return {
        "configuration": configuration,
        "configuration_digest": digest(configuration),
        "shards": len(receipts),
        "counts": counts,
        "totals": totals,
        "bytes": sum(receipt.tar.bytes for receipt in receipts),
        "receipts": digest([receipt.digest for receipt in sorted(receipts, key=lambda receipt: receipt.shard)]),
    }

"""The authors' checkpoints: of the form of `reference/model.md` 7, made here name by name; in, out, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.initialisation.official import export_official, import_official, official_tensors
from mvptr_model.initialisation.scratch import from_scratch
from mvptr_model.saved_model import load_model, save_model
from mvptr_model.word_pieces import WordPieces
from tests.mvptr_model.initialisation.official_form import (
    ANSWERS,
    IDS,
    INPUTS,
    PIECES,
    PLACES,
    ROWS,
    SIZE,
    SIZES,
    TABLE,
    WIDE,
    WORDS,
    checkpoint,
    imported,
    phrases,
    write,
)
from tests.mvptr_model.random_batches import random_batch


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write(checkpoint(), tmp_path / "official")


def test_the_form_has_318_tensors() -> None:
    assert len(checkpoint()) == 318 and len(checkpoint(region_layernorm=False)) == 316


def test_every_number_is_where_it_belongs(source: str, tmp_path: Path) -> None:
    theirs = checkpoint()
    found, report = import_official(source, phrases(tmp_path), inputs=INPUTS)
    own, configuration = found.model.state_dict(), found.model.configuration
    assert (configuration.layers, configuration.heads, configuration.wpg_layer) == (6, 3, 6)
    assert configuration.region_layernorm and not configuration.tied_decoders and not configuration.match_concepts
    for rank, number in enumerate(IDS):
        assert torch.equal(own[TABLE][WORDS + rank], theirs[TABLE][number]), number
        assert found.phrases.rank(found.phrases.phrases[rank]) == rank
    assert torch.equal(own[TABLE][:WORDS], theirs[TABLE][:WORDS])
    assert torch.equal(own[TABLE][WORDS + len(IDS) :], theirs[TABLE][[44, 45, 50, 51]])
    states = torch.randn(4, SIZE)
    for name, projection in (
        ("bert.txt_proj", found.model.bert.txt_proj),
        ("bert.vis_proj", found.model.bert.vis_proj),
    ):
        torch.testing.assert_close(projection(states), states @ theirs[name])
    expected = F.linear(states, theirs["cls.seq_relationship.weight"], theirs["cls.seq_relationship.bias"])
    torch.testing.assert_close(found.model.cls.seq_relationship(states).softmax(1)[:, 1], expected.softmax(1)[:, 0])
    same = own.keys() & theirs.keys() - {TABLE, "cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    assert len(same) == 318 - 7 and all(torch.equal(own[name], theirs[name]) for name in same)
    assert {name.partition(".")[0] for name in report.missing} == {"phrase_mcr"}
    assert report.unexpected == tuple(sorted(ANSWERS)) and report.notes == ()


def test_the_authors_forward_is_ours(source: str, tmp_path: Path) -> None:
    """A text through their textual encoder, by `transformers`, and through ours, with a phrase's official id and its row."""
    from transformers import BertConfig, BertModel

    theirs = checkpoint()
    reference = BertModel(
        BertConfig(
            vocab_size=ROWS,
            hidden_size=SIZE,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=WIDE,
            max_position_embeddings=PLACES,
        ),
        add_pooling_layer=False,
    ).eval()
    stack = {name.replace("bert.txt_encoder", "encoder"): one for name, one in theirs.items() if "txt_encoder" in name}
    embeddings = {name.removeprefix("bert."): one for name, one in theirs.items() if "embeddings." in name}
    reference.load_state_dict(stack | embeddings)
    expected = reference(torch.tensor([[1, 9, 20, 46, 31, 2]])).last_hidden_state
    model = imported(source, tmp_path).model.eval()
    ranks = [WORDS + IDS.index(46), WORDS + IDS.index(31)]
    found = reference_encoder(model)(
        model.bert.embeddings.word_embeddings.weight[torch.tensor([[1, 9, 20, *ranks, 2]])]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def reference_encoder(model: Any) -> Callable[[Tensor], Tensor]:
    """Our textual encoder's weights in `transformers`' layers, on embedded rows."""
    from transformers import BertConfig, BertModel

    own = model.state_dict()
    reference = BertModel(
        BertConfig(
            vocab_size=len(own[TABLE]),
            hidden_size=SIZE,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=WIDE,
            max_position_embeddings=PLACES,
        ),
        add_pooling_layer=False,
    ).eval()
    stack = {name.replace("bert.txt_encoder", "encoder"): one for name, one in own.items() if "txt_encoder" in name}
    embeddings = {name.removeprefix("bert."): one for name, one in own.items() if "bert.embeddings." in name}
    reference.load_state_dict(stack | embeddings)
    return lambda rows: reference(inputs_embeds=rows).last_hidden_state


@pytest.mark.parametrize("region_layernorm", [True, False])
def test_out_again_is_what_came_in(region_layernorm: bool, tmp_path: Path) -> None:
    """export(import(c)) = c, but for the answers' head, which has no place in ours."""
    theirs = checkpoint(region_layernorm=region_layernorm)
    for number in IDS[:2]:  # a word's row is one row, theirs
        assert number < WORDS
    found = imported(write(theirs, tmp_path / "official"), tmp_path)
    report = export_official(found, str(tmp_path / "out"))
    again = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True)
    assert again.keys() == theirs.keys() - set(ANSWERS)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.items())
    assert all(tensor.is_contiguous() for tensor in again.values())
    assert len(report.unexpected) == 5 and all(name.startswith("phrase_mcr.") for name in report.unexpected)
    assert report.notes == ("2 phrases have a word's row there, and what they have of their own is left out",)
    assert json.loads((tmp_path / "out" / "id2phrase.json").read_text()) == json.loads(
        (tmp_path / "id2phrase.json").read_text()
    )
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["use_img_layernorm"] == int(region_layernorm) and settings["vocab_size"] == ROWS


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_in_again_is_what_went_out(preset: str, source: str, tmp_path: Path) -> None:
    """import(export(m)) = m on what the format holds, also for a model of ours with its own phrases."""
    ours = PhraseVocabulary.from_counts([(("w1", f"w{number}"), 9) for number in range(9)], {})
    given = from_scratch(PIECES, ours, settings={**SIZES, "preset": preset}, inputs=INPUTS, seed=3)
    export_official(given, str(tmp_path / "out"))
    found, _ = import_official(str(tmp_path / "out"), ours, inputs=INPUTS)
    own, again = given.model.state_dict(), found.model.state_dict()
    decoders = {"cls.predictions.decoder.weight", "half_mlm.decoder.weight"}
    assert again.keys() - own.keys() == (decoders if preset == "paper" else set())
    assert own.keys() <= again.keys()
    held = [name for name in own if not name.startswith("phrase_mcr.")]
    assert all(torch.equal(again[name], own[name]) for name in held)
    for name in decoders:
        assert torch.equal(again[name], own.get(name, own[TABLE][:WORDS]))
    assert found.words.pieces == PIECES.pieces


def test_the_same_model_is_the_same_bytes(source: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_official(imported(source, tmp_path), str(tmp_path / name))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["config.json", "id2phrase.json", "pytorch_model.bin", "vocab.txt"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_what_was_imported_is_a_model_on_disk_that_learns(source: str, tmp_path: Path) -> None:
    found = imported(source, tmp_path)
    save_model(tmp_path / "model", found)
    model = load_model(tmp_path / "model").model
    batch = random_batch(3, 4)
    losses = model(batch, stage=2, seed=1).losses
    assert set(losses) == {"mcr_v", "vsc", "wpg", "itm", "mlm"} and all(
        bool(loss.isfinite()) for loss in losses.values()
    )
    again = found.model.eval()(batch, stage=2, seed=1).losses
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_rows_are_those_of_the_real_ids(tmp_path: Path) -> None:
    """86,051 rows, 73,599 phrases, the hole from 79508 to 80007: what the authors' id2phrase.json has."""
    single, tuples = range(999, 30522), range(30522, 79508)
    ids = [*list(single)[: 73_599 - 48_986 - 6_043], *tuples, *range(80008, 86051)]
    entries = {str(number): [f"p{number}"] for number in ids}
    (tmp_path / "id2phrase.json").write_text(json.dumps(entries))
    vocabulary = PhraseVocabulary.load(str(tmp_path / "id2phrase.json"))
    words = WordPieces([*PIECES.pieces[:5], *(f"p{number}" for number in range(30_517))])
    theirs = checkpoint(rows=86_051)
    for name in ("cls.predictions", "half_mlm"):
        theirs |= {f"{name}.decoder.weight": torch.randn(30_522, SIZE), f"{name}.bias": torch.randn(30_522)}
    source = write(theirs, tmp_path / "official")
    found, _ = import_official(source, vocabulary, words=words, inputs=INPUTS)
    table = found.model.state_dict()[TABLE]
    assert len(vocabulary) == 73_599 and len(table) == 30_522 + 73_599 + 500
    ranks = torch.tensor(
        [words.size + vocabulary.phrases.index((f"p{number}",)) for number in (999, 30522, 79507, 80008)]
    )
    assert torch.equal(table[ranks], theirs[TABLE][[999, 30522, 79507, 80008]])
    again, report = official_tensors(found)
    assert torch.equal(again[TABLE], theirs[TABLE])
    assert report.notes[0].startswith("18,570 phrases have a word's row")


def test_plain_files_and_other_forms(source: str, tmp_path: Path) -> None:
    """A file alone, safetensors, a table under "model", old names, half precision."""
    expected = imported(source, tmp_path).model.state_dict()
    old = {
        "module." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in checkpoint().items()
    }
    torch.save({"model": old, "epoch": 3}, tmp_path / "alone.pth")
    save_file(checkpoint(), tmp_path / "alone.safetensors")
    torch.save(checkpoint(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("alone.pth", "alone.safetensors", "legacy.pt"):
        found = imported(str(tmp_path / name), tmp_path, words=PIECES, heads=3).model
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.state_dict().items()), name
        assert found.configuration.heads == 3
    with pytest.raises(InputError, match=r"no word pieces beside it.*--words"):
        imported(str(tmp_path / "alone.pth"), tmp_path)


def test_without_phrases_their_rows_are_kept(source: str, tmp_path: Path) -> None:
    found, _ = import_official(source, inputs=INPUTS)
    assert len(found.phrases) == 0 and torch.equal(found.model.state_dict()[TABLE], checkpoint()[TABLE])
    assert torch.equal(official_tensors(found)[0][TABLE], checkpoint()[TABLE])


def test_a_third_itm_row_is_left_out(tmp_path: Path) -> None:
    theirs = checkpoint(itm_rows=3)
    found, report = import_official(write(theirs, tmp_path / "official"), phrases(tmp_path), inputs=INPUTS)
    assert torch.equal(found.model.cls.seq_relationship.weight, theirs["cls.seq_relationship.weight"][[1, 0]])
    assert torch.equal(found.model.cls.seq_relationship.bias, theirs["cls.seq_relationship.bias"][[1, 0]])
    assert report.notes[0] == "cls.seq_relationship.weight has 3 rows: the third, which no pair was, is left out"


def test_a_checkpoint_of_a_task_may_lack_heads(tmp_path: Path) -> None:
    theirs = {name: one for name, one in checkpoint().items() if not name.startswith(("cls.", "half_mlm."))}
    found, report = import_official(write(theirs, tmp_path / "task"), phrases(tmp_path), inputs=INPUTS, seed=1)
    again, _ = import_official(str(tmp_path / "task"), phrases(tmp_path), inputs=INPUTS, seed=1)
    assert {name.partition(".")[0] for name in report.missing} == {"cls", "half_mlm", "phrase_mcr"}
    assert all(torch.equal(one, again.model.state_dict()[name]) for name, one in found.model.state_dict().items())


def test_a_tied_decoder_is_the_words_rows(tmp_path: Path) -> None:
    theirs = {name: one for name, one in checkpoint().items() if "decoder" not in name}
    found, report = import_official(write(theirs, tmp_path / "tied"), phrases(tmp_path), inputs=INPUTS)
    assert torch.equal(found.model.state_dict()["half_mlm.decoder.weight"], theirs[TABLE][:WORDS])
    assert len(report.notes) == 2 and "no decoder of its own" in report.notes[0]


def test_rows_that_were_never_there_are_zeros(tmp_path: Path) -> None:
    vocabulary = phrases(tmp_path, [41, 43])
    given = from_scratch(PIECES, vocabulary, settings=SIZES, inputs=INPUTS)
    found, report = official_tensors(given)
    assert len(found[TABLE]) == 44 and not found[TABLE][[40, 42]].any() and found[TABLE][[41, 43]].any(dim=1).all()
    assert report.notes == ("2 rows that no phrase has are zeros",)


def test_a_merged_model_has_no_place_there(tmp_path: Path) -> None:
    merged = {"merged_attention": True, "losses": ["mcr_v", "mcr_s", "wpg", "itm", "mlm"]}
    given = from_scratch(PIECES, phrases(tmp_path), settings={**SIZES, **merged}, inputs=INPUTS)
    with pytest.raises(InputError, match="merged_attention"):
        export_official(given, str(tmp_path / "out"))
    assert not Store.at(tmp_path / "out").exists("config.json")

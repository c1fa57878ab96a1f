"""From BERT: every layer where it belongs, equal outputs, phrases as means; whatever is no such BERT is one clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, BertModel

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.encoders import Encoder
from mvptr_model.initialisation.bert import from_bert
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import SavedModel

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "man", "surf", "##board", "red", "dog", "on", "a"]
PHRASES = PhraseVocabulary.from_counts(
    [(("dog", "red"), 9), (("man", "on", "surfboard"), 8), (("zebra", "dog"), 7), (("\u200b", "\u200d"), 6)], {}
)
#: The word pieces of each, written out.
PHRASE_PIECES = [["dog", "red"], ["man", "on", "surf", "##board"], ["[UNK]", "dog"], ["[UNK]"]]
INPUTS = InputSettings(max_words=10, max_phrases=4, max_tags=9)
TABLE = "bert.embeddings.word_embeddings.weight"


def bert(layers: int = 4, **changes: Any) -> BertForPreTraining:
    """A small BERT whose every number is its own."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 96, "max_position_embeddings": 20}
    config = BertConfig(vocab_size=len(PIECES), num_hidden_layers=layers, **{**sizes, **changes})
    model = BertForPreTraining(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save(model: torch.nn.Module, folder: Path, pieces: list[str] = PIECES) -> str:
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return str(folder)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    return save(bert(), tmp_path / "bert")


def weights(saved: SavedModel) -> dict[str, Tensor]:
    return dict(saved.model.state_dict())


def hidden_states(model: BertForPreTraining, ids: Tensor) -> tuple[Tensor, ...]:
    return tuple(model.bert(ids, output_hidden_states=True).hidden_states)


def stack(encoder: Encoder, states: Tensor) -> Tensor:
    """The output of a stack of ours, layer by layer, as `transformers` would compute it with these weights."""
    config = BertConfig(
        hidden_size=48, num_attention_heads=6, intermediate_size=96, num_hidden_layers=len(encoder.layer), vocab_size=5
    )
    reference = BertModel(config).eval().encoder
    reference.load_state_dict(encoder.state_dict())
    return reference(states).last_hidden_state


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_first_half_twice_second_half_once(layers: int, tmp_path: Path) -> None:
    """Fed with what BERT's layers are fed with, each stack of ours gives what those layers give."""
    theirs = bert(layers)
    found, report = from_bert(save(theirs, tmp_path / "bert"), PHRASES, inputs=INPUTS)
    configuration, encoders = found.model.configuration, found.model.bert
    assert (configuration.layers, configuration.heads, configuration.positions) == (layers // 2, 6, 20)
    states = hidden_states(theirs, torch.tensor([[2, 5, 9, 3]]))
    half = layers // 2
    for encoder, first, last in (
        (encoders.txt_encoder, 0, half),
        (encoders.vis_encoder, 0, half),
        (encoders.mul_encoder, half, layers),
    ):
        assert len(encoder.layer) == half
        torch.testing.assert_close(stack(encoder, states[first]), states[last], atol=1e-5, rtol=1e-5)
    embedded = found.model.state_dict()
    for name in ("position_embeddings.weight", "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"):
        assert torch.equal(embedded[f"bert.embeddings.{name}"], theirs.state_dict()[f"bert.embeddings.{name}"])
    assert torch.equal(encoders.pooler.dense.weight, theirs.bert.pooler.dense.weight)
    assert report.missing == (
        "logit_scale",
        *(
            f"bert.{name}"
            for name in ("img_embedding.weight", "img_embedding.bias", "LayerNorm.weight", "LayerNorm.bias")
        ),
        *(f"bert.{name}_proj.weight" for name in ("txt", "vis")),
        *(f"cls.seq_relationship.{name}" for name in ("weight", "bias")),
    )
    assert report.unexpected == ("cls.seq_relationship.bias", "cls.seq_relationship.weight")


def test_merged_attention_takes_all_layers(saved: str) -> None:
    merged = {"merged_attention": True, "losses": ["mcr_v", "mcr_s", "wpg", "itm", "mlm"]}
    found, _ = from_bert(saved, PHRASES, settings=merged, inputs=INPUTS)
    states = hidden_states(bert(), torch.tensor([[2, 5, 9, 3]]))
    assert len(found.model.bert.mul_encoder.layer) == 4 and not len(found.model.bert.txt_encoder.layer)
    torch.testing.assert_close(stack(found.model.bert.mul_encoder, states[0]), states[-1], atol=1e-5, rtol=1e-5)


def test_a_phrase_is_the_mean_of_its_pieces(saved: str) -> None:
    found, _ = from_bert(saved, PHRASES, inputs=INPUTS)
    rows, head = bert().state_dict()[TABLE], bert().state_dict()["cls.predictions.bias"]
    table, bias = weights(found)[TABLE], weights(found)["phrase_mcr.bias"]
    assert torch.equal(table[: len(PIECES)], rows)
    for rank, pieces in enumerate(PHRASE_PIECES):
        ids = [PIECES.index(piece) for piece in pieces]
        row = torch.stack([rows[number].double() for number in ids]).sum(dim=0) / len(ids)
        torch.testing.assert_close(table[len(PIECES) + rank].double(), row, atol=1e-7, rtol=1e-6)
        assert float(bias[rank]) == pytest.approx(sum(float(head[number]) for number in ids) / len(ids), abs=1e-6)


def test_heads_say_what_berts_says(saved: str) -> None:
    """MLM and tag heads give BERT's logits; a phrase's logit is the mean of its word pieces'."""
    found, _ = from_bert(saved, PHRASES, inputs=INPUTS)
    torch.manual_seed(1)
    states = torch.randn(5, 48)
    expected = bert().cls.predictions(states)
    words, phrases = weights(found)[TABLE].split([len(PIECES), len(PHRASES)])
    for head in (found.model.cls.predictions, found.model.half_mlm):
        torch.testing.assert_close(head(states, words), expected, atol=1e-5, rtol=1e-5)
    logits = found.model.phrase_mcr(states, phrases)
    for rank, pieces in enumerate(PHRASE_PIECES):
        mean = expected[:, [PIECES.index(piece) for piece in pieces]].mean(dim=1)
        torch.testing.assert_close(logits[:, rank], mean, atol=1e-5, rtol=1e-5)


def test_untied_decoders_start_from_the_same_rows(saved: str) -> None:
    found, _ = from_bert(saved, PHRASES, settings={"preset": "official"}, inputs=INPUTS)
    assert found.model.configuration.wpg_layer == 2  # of 6 in the preset, and 2 here
    for name in ("cls.predictions", "half_mlm"):
        assert torch.equal(weights(found)[f"{name}.decoder.weight"], bert().state_dict()[TABLE])


def test_a_bert_without_heads(tmp_path: Path) -> None:
    found, report = from_bert(save(bert().bert, tmp_path / "bare"), PHRASES, inputs=INPUTS)
    assert torch.equal(weights(found)[TABLE][: len(PIECES)], bert().state_dict()[TABLE])
    assert {"cls.predictions.bias", "half_mlm.transform.dense.weight", "phrase_mcr.bias"} <= set(report.missing)
    assert report.unexpected == ()


def test_only_what_is_fresh_depends_on_the_seed(saved: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    (one, report), (same, _), (other, _) = (from_bert(saved, PHRASES, inputs=INPUTS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    changed = {name for name, tensor in weights(one).items() if not torch.equal(tensor, weights(other)[name])}
    assert all(torch.equal(tensor, weights(same)[name]) for name, tensor in weights(one).items())
    assert changed == {name for name in report.missing if name.endswith("weight") and "LayerNorm" not in name}


def test_old_forms_are_read(saved: str, tmp_path: Path) -> None:
    """`pytorch_model.bin`, `gamma` and `beta`, `module.`; a tokenizer.json where there is no vocab.txt; half precision."""
    expected = weights(from_bert(saved, PHRASES, inputs=INPUTS)[0])
    old = tmp_path / "old"
    old.mkdir()
    tensors = {
        "module." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in load_file(Path(saved, "model.safetensors")).items()
    }
    torch.save(
        {"model": {**tensors, "module.bert.embeddings.position_ids": torch.arange(20)}}, old / "pytorch_model.bin"
    )
    shutil.copy(Path(saved, "config.json"), old)
    tokenizer = {"model": {"type": "WordPiece", "vocab": {piece: number for number, piece in enumerate(PIECES)}}}
    (old / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = weights(from_bert(str(old), PHRASES, inputs=INPUTS)[0])
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, old / "pytorch_model.bin")
    halved = weights(from_bert(str(old), PHRASES, inputs=INPUTS)[0])
    assert all(tensor.dtype == torch.float32 for tensor in halved.values())
    assert torch.equal(halved["bert.pooler.dense.weight"], expected["bert.pooler.dense.weight"].half().float())


def test_safetensors_are_preferred(saved: str) -> None:
    Path(saved, "pytorch_model.bin").write_bytes(b"no checkpoint")
    from_bert(saved, PHRASES, inputs=INPUTS)


def test_hub_names_are_found_in_the_local_cache(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = "0" * 40
    repository = tmp_path / "cache" / "models--some--small-bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(saved, repository / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found, report = from_bert("some/small-bert", PHRASES, inputs=INPUTS)
    assert torch.equal(weights(found)[TABLE][: len(PIECES)], bert().state_dict()[TABLE])
    assert "models--some--small-bert" in report.source
    with pytest.raises(InputError, match=r"neither the Hugging Face hub nor its local cache"):
        from_bert("some/other-bert", PHRASES)
    with pytest.raises(InputError, match="there is no checkpoint at"):
        from_bert("a/b/c", PHRASES)


def rewrite(saved: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(Path(saved, "model.safetensors"))
    change(tensors)
    save_file(tensors, Path(saved, "model.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.update({"bert.encoder.layer.1.output.dense.weight": torch.zeros(48, 95)}), r"\[48, 95\]"),
        (
            lambda one: one.update({"bert.pooler.dense.bias": torch.tensor([float("nan")] * 48)}),
            "NaN or infinite.*pooler",
        ),
        (lambda one: one.pop("bert.encoder.layer.3.output.dense.weight"), "nothing for .*layer.1.output.dense.weight"),
        (lambda one: one.pop("bert.embeddings.position_embeddings.weight"), "nothing for .*position"),
        (lambda one: one.pop(TABLE), "has no bert.embeddings.word_embeddings.weight"),
        (lambda one: one.update({TABLE: torch.zeros(50, 48)}), "rows for 50 word pieces, and there are 12"),
        (lambda one: one.update({TABLE: torch.zeros(12)}), "has no bert.embeddings.word_embeddings"),
        (lambda one: [one.pop(name) for name in list(one) if "layer.3" in name], "3 layers"),
        (lambda one: [one.pop(name) for name in list(one) if "layer." in name], "0 layers"),
    ],
)
def test_another_checkpoint_is_one_clear_error(
    change: Callable[[dict[str, Tensor]], object], message: str, saved: str
) -> None:
    rewrite(saved, change)
    with pytest.raises(InputError, match=message):
        from_bert(saved, PHRASES, inputs=INPUTS)


def test_all_that_does_not_fit_is_told_at_once(saved: str) -> None:
    with pytest.raises(InputError, match=r"position_embeddings.*\[20, 48\].*\[16, 48\]"):
        from_bert(saved, PHRASES, settings={"positions": 16}, inputs=INPUTS)
    with pytest.raises(InputError, match=r"does not fit the model: .*; .*; and \d+ more"):
        from_bert(saved, PHRASES, settings={"hidden_size": 24}, inputs=INPUTS)
    with pytest.raises(InputError, match="gives 2 layers to an encoder, half of its own, and not 1"):
        from_bert(saved, PHRASES, settings={"layers": 1, "wpg_layer": 1}, inputs=INPUTS)
    with pytest.raises(InputError, match="word_rows is 30522, and the vocabulary has 12"):
        from_bert(saved, PHRASES, settings={"word_rows": 30522}, inputs=INPUTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"num_attention_heads": 7}, "7 heads cannot share"),
    ],
)
def test_settings_that_our_layers_do_not_have(changes: dict[str, Any], message: str, saved: str) -> None:
    path = Path(saved, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        from_bert(saved, PHRASES, inputs=INPUTS)


def test_word_pieces_that_tell_capitals_are_refused(saved: str) -> None:
    Path(saved, "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(InputError, match="uncased"):
        from_bert(saved, PHRASES, inputs=INPUTS)


def test_files_that_are_missing_or_torn(saved: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no checkpoint at"):
        from_bert(str(tmp_path / "no where"), PHRASES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no weights"):
        from_bert(str(tmp_path / "empty"), PHRASES)
    for name, message in (("vocab.txt", "no word pieces beside it"), ("config.json", "no config.json")):
        copied = shutil.copytree(saved, tmp_path / name)
        (copied / name).unlink()
        with pytest.raises(InputError, match=message):
            from_bert(str(copied), PHRASES)
    whole = Path(saved, "model.safetensors").read_bytes()
    Path(saved, "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match=r"cannot read tensors from .*model\.safetensors"):
        from_bert(saved, PHRASES)

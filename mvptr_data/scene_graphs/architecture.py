"""The bundled pipeline before training: its networks, and the tables of its lemmatizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spacy.lang.en import English
from spacy.language import Language
from spacy.lookups import Lookups, load_lookups

from mvptr_data.errors import MissingDependencyError
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.pipeline import keep_hyphens
from mvptr_data.scene_graphs.tagset import FORMS_OF_BE

#: Labels seen less often are no actions of the parser.
MIN_ACTION_FREQUENCY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Sizes of the parser's networks; the defaults are the bundled model's.

    Attributes:
        width, depth: of the convolutions that tagger and parser share.
        pieces: linear pieces of every maxout unit in them.
        rows: hashed embeddings of each feature of a word: its lower-case form and its last three letters.
        hidden, hidden_pieces: units of the parser's state and their pieces.
        upper: whether a further layer scores the actions; without it the state does.
    """

    width: int = 96
    depth: int = 2
    pieces: int = 3
    rows: Mapping[str, int] = field(default_factory=lambda: {"NORM": 5000, "SUFFIX": 2500})
    hidden: int = 64
    hidden_pieces: int = 2
    upper: bool = True


def build_pipeline(networks: Networks) -> English:
    """The untrained pipeline."""
    nlp = English()
    keep_hyphens(nlp)
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": networks.width,
        "attrs": list(networks.rows),
        "rows": list(networks.rows.values()),
        "include_static_vectors": False,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": networks.width,
        "depth": networks.depth,
        "window_size": 1,
        "maxout_pieces": networks.pieces,
    }
    nlp.add_pipe(
        "tok2vec",
        config={"model": {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}},
    )
    shared = {"@architectures": "spacy.Tok2VecListener.v1", "width": networks.width, "upstream": "tok2vec"}
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": shared}})
    nlp.add_pipe(
        "parser",
        config={
            "min_action_freq": MIN_ACTION_FREQUENCY,
            "model": {
                "@architectures": "spacy.TransitionBasedParser.v2",
                "state_type": "parser",
                "extra_state_tokens": False,
                "hidden_width": networks.hidden,
                "maxout_pieces": networks.hidden_pieces,
                "use_upper": networks.upper,
                "tok2vec": shared,
            },
        },
    )
    nlp.add_pipe("attribute_ruler")
    nlp.add_pipe("lemmatizer", config={"mode": "rule"})
    return nlp


def lemma_tables() -> Lookups:
    """WordNet's suffix rules, exceptions and word lists as packed by spacy-lookups-data.

    The word lists become mappings: spaCy tests `form in list`, which is linear in 100,000 words for a list.
    Raises `MissingDependencyError` without that package.
    """
    try:
        source = load_lookups("en", ["lemma_rules", "lemma_exc", "lemma_index"])
    except ValueError as error:
        raise MissingDependencyError("spacy-lookups-data is not installed", "pip install spacy-lookups-data") from error
    kinds = ("noun", "verb", "adj", "adv")
    tables = Lookups()
    for name in ("lemma_rules", "lemma_exc"):
        table = source.get_table(name)
        tables.add_table(name, {kind: table[kind] for kind in kinds if kind in table})
    index = source.get_table("lemma_index")
    tables.add_table("lemma_index", {kind: dict.fromkeys(index[kind], 1) for kind in kinds if kind in index})
    tables.get_table("lemma_exc")["aux"] = {form: ["be"] for form in FORMS_OF_BE}
    drop_rivals(tables)
    return tables


def drop_rivals(tables: Lookups) -> None:
    """Of two verbs that could have one form (riding: ride, rid) keeps the one that our lemmatizer names.

    spaCy's names the last of its rules', which is rid.
    """
    lemmatizer = Lemmatizer(tables)
    verbs = tables.get_table("lemma_index")["verb"]
    rivals = [(verb, verb[:-1]) for verb in verbs if verb.endswith("e") and verb[:-1] in verbs]
    for long, short in rivals:
        verbs.pop(short if lemmatizer.verb(f"{short}ing") == long else long)


def compact(nlp: Language, networks: Networks, words: Iterable[str]) -> English:
    """A copy whose string store holds the labels, the words given and what its components add themselves.

    The texts' other words are left out. `pipeline.load_pipeline` prepares the words in it once and for all.
    """
    small = build_pipeline(networks)
    for name in ("tagger", "parser"):
        for label in nlp.pipe_labels[name]:
            small.vocab.strings.add(label)
    for word in words:
        small.vocab.strings.add(word)
    return small.from_bytes(nlp.to_bytes(exclude=["vocab"]), exclude=["vocab"])  # type: ignore[return-value]

"""The bundled pipeline before training: its networks, and the tables of its lemmatizer."""

from __future__ import annotations

from spacy.lang.en import English
from spacy.language import Language
from spacy.lookups import Lookups, load_lookups

from mvptr_data.errors import MissingDependencyError
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.pipeline import keep_hyphens
from mvptr_data.scene_graphs.tagset import FORMS_OF_BE


def build_pipeline(width: int, depth: int) -> English:
    """The untrained pipeline; `width` and `depth` are those of the shared convolutions."""
    nlp = English()
    keep_hyphens(nlp)
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": width,
        "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
        "rows": [5000, 1000, 2500, 500],
        "include_static_vectors": False,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": width,
        "depth": depth,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    nlp.add_pipe(
        "tok2vec",
        config={"model": {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}},
    )
    shared = {"@architectures": "spacy.Tok2VecListener.v1", "width": width, "upstream": "tok2vec"}
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": shared}})
    nlp.add_pipe(
        "parser",
        config={
            "min_action_freq": 10,
            "model": {
                "@architectures": "spacy.TransitionBasedParser.v2",
                "state_type": "parser",
                "extra_state_tokens": False,
                "hidden_width": 64,
                "maxout_pieces": 2,
                "use_upper": True,
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


def compact(nlp: Language, width: int, depth: int) -> English:
    """A copy whose string store holds the labels and what its components add themselves, not the training texts' words."""
    small = build_pipeline(width, depth)
    for name in ("tagger", "parser"):
        for label in nlp.pipe_labels[name]:
            small.vocab.strings.add(label)
    return small.from_bytes(nlp.to_bytes(exclude=["vocab"]), exclude=["vocab"])  # type: ignore[return-value]

"""spaCy pipelines that can parse captions: the bundled one, or any with Penn Treebank tags and ClearNLP labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.util import compile_infix_regex

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.operations import multiply_with_numpy

#: Directory of the pipeline that ships with this package.
BUNDLED_MODEL = Path(__file__).parent / "model"

#: Labels that the rules cannot do without, and that tell ClearNLP's scheme from Universal Dependencies.
CLEARNLP_LABELS = frozenset({"dobj", "pobj", "prep", "nsubjpass"})
PENN_TAGS = frozenset({"NN", "NNS", "JJ", "VBG", "VBN"})

#: What to do about a pipeline that cannot be used.
OTHER_PIPELINE = "Use a pipeline for English such as en_core_web_sm, or name none to use the bundled one."

#: Characters of a foreign message that are repeated.
MAX_CAUSE = 300

#: Components that tags and heads come from; the others are not run.
NEEDED_FACTORIES = frozenset({"tok2vec", "transformer", "curated_transformer", "tagger", "parser"})


def keep_hyphens(nlp: Language) -> None:
    """Stops the tokenizer from splitting words at inner hyphens (double-decker, t-shirt)."""
    tokenizer = nlp.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"the tokenizer {type(tokenizer).__name__} is not spaCy's rule tokenizer", OTHER_PIPELINE)
    infixes = [str(infix) for infix in nlp.Defaults.infixes or ()]
    tokenizer.infix_finditer = compile_infix_regex([rule for rule in infixes if not is_hyphen_rule(rule)]).finditer


def is_hyphen_rule(infix: str) -> bool:
    """Whether one of spaCy's infix patterns splits letters at a hyphen."""
    return "|--|" in infix or "-|" in infix


def load_pipeline(model: str | Path | None = None) -> Language:
    """The spaCy pipeline at a path or of a name, cut to what tags and parses; None is the bundled one.

    Raises `InputError` where it is not installed or damaged, or lacks a tagger with Penn Treebank tags or a parser with
    ClearNLP labels.
    """
    name = str(BUNDLED_MODEL if model is None else model)
    nlp = read_pipeline(name)
    require_labels(nlp, name, "tagger", PENN_TAGS, "Penn Treebank tags")
    require_labels(nlp, name, "parser", CLEARNLP_LABELS, "ClearNLP dependency labels")
    for component in nlp.pipe_names:
        if nlp.get_pipe_meta(component).factory not in NEEDED_FACTORIES:
            nlp.remove_pipe(component)
    if model is not None:  # the bundled tokenizer was saved this way
        keep_hyphens(nlp)
    multiply_with_numpy(nlp)
    prepare_words(nlp)
    return nlp


def read_pipeline(name: str) -> Language:
    """The pipeline as spaCy loads it; `InputError` with the cause where it does not."""
    if not name:
        raise InputError("the spaCy pipeline has no name", OTHER_PIPELINE)
    try:
        nlp = spacy.load(name)
    except Exception as error:  # of spaCy, of what reads its files, and of packages that are no pipeline
        if "[E050]" in str(error):  # spaCy's "can't find model"
            raise InputError(
                f"the spaCy pipeline {name!r} is not installed, and no directory of a pipeline",
                f"Install it (python -m spacy download {name}), give a directory, or leave it out to use the bundled"
                " one.",
            ) from error
        raise InputError(f"the spaCy pipeline {name!r} cannot be loaded: {cause_of(error)}", OTHER_PIPELINE) from error
    if not isinstance(nlp, Language) or nlp.path is None:
        raise InputError(f"what {name!r} loads is no spaCy pipeline with a folder of its own", OTHER_PIPELINE)
    return nlp


def cause_of(error: Exception) -> str:
    """A foreign error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_CAUSE]


def prepare_words(nlp: Language) -> None:
    """Works out features and tokens of the pipeline's own words once, before any memory zone, which would forget them.

    The bundled model has the frequent words of captions among its strings. Other pipelines have some ten thousand
    (en_core_web_sm 80,000).
    """
    for word in list(nlp.vocab.strings):
        nlp.vocab[word]
        nlp.make_doc(word)


def require_labels(nlp: Language, name: str, component: str, wanted: Iterable[str], meaning: str) -> None:
    """Raises `InputError` unless the pipeline's component knows the labels."""
    if component not in nlp.pipe_names:
        raise InputError(f"the spaCy pipeline {name!r} has no {component}", OTHER_PIPELINE)
    missing = sorted(set(wanted) - set(nlp.pipe_labels[component]))
    if missing:
        raise InputError(
            f"the {component} of the spaCy pipeline {name!r} has no {meaning}: it lacks {', '.join(missing)}",
            OTHER_PIPELINE,
        )


def describe_pipeline(nlp: Language, model: str | Path | None) -> dict[str, object]:
    """What parses and lemmas depend on: the pipeline's name and version and the digest of its files.

    Lemmas are always those of the bundled tables.
    """
    if model is None:
        return {"spacy_model": "bundled", "digest": digest_directory(BUNDLED_MODEL)}
    return {
        "spacy_model": f"{nlp.meta['lang']}_{nlp.meta['name']}",
        "spacy_model_version": nlp.meta["version"],
        "digest": digest_directory(nlp.path),
        "lemmas": digest_directory(BUNDLED_MODEL / "lemmatizer"),
    }


def digest_directory(directory: Path) -> str:
    """sha256 over the names and bytes of a directory's files, in sorted order."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(directory).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()

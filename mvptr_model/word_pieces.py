"""Text to word pieces, as BERT's uncased models cut it (Devlin et al. 2019; Wu et al. 2016).

`tokenizers` does the cutting. Words of a caption come again and again, so what it made of each is remembered, and a text of plain
characters is put together from its words: in a third of the tokenizer's time (`benchmarks/collate.py`), with equal results. Texts
come one at a time: batches gain nothing, and a faulty sample fails alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mvptr_data.errors import InputError
from mvptr_data.storage import Store

UNKNOWN = "[UNK]"
#: Words of printable ASCII text: BERT splits at spaces and around each punctuation mark.
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9 ]")
#: Words and tags that are remembered, and their length; longer words are `UNKNOWN` anyway.
_REMEMBERED, _LONGEST = 50_000, 100


class Pieces(NamedTuple):
    """The word pieces of a text: their `ids`, and for each where it starts and ends, in half-open code-point `offsets`."""

    ids: list[int]
    offsets: list[int]


class WordPieces:
    """A word-piece vocabulary; `size` is V, the number of its rows in the embedding table. Picklable.

    Ids are places in `pieces`. Texts are lower-cased and lose their accents. `[MASK]` and the like in a text are its brackets and
    letters, never the special tokens `pad`, `cls`, `sep`, `mask`.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        """Raises `InputError` where a piece comes twice or a special token is missing."""
        ids = {piece: number for number, piece in enumerate(pieces)}
        if len(ids) != len(pieces):
            twice = next(piece for number, piece in enumerate(pieces) if ids[piece] != number)
            raise InputError(
                f"the word piece {twice!r} comes twice in the vocabulary", "Give one such as BERT's vocab.txt."
            )
        if missing := [name for name in (UNKNOWN, "[PAD]", "[CLS]", "[SEP]", "[MASK]") if name not in ids]:
            raise InputError(
                f"the word pieces lack {', '.join(missing)}", "Give a vocabulary such as BERT's vocab.txt."
            )
        self.pieces = tuple(pieces)
        self.size = len(ids)
        self.pad, self.cls, self.sep, self.mask = (ids[name] for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"))
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=_LONGEST))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._known: dict[str, Pieces] = {}

    @classmethod
    def load(cls, path: str) -> WordPieces:
        """From a file with a piece a line, such as BERT's vocab.txt; `path` may be a URL. Raises `InputError`."""
        folder, slash, name = path.rpartition("/")
        try:
            text = Store.at(folder or slash or ".").read(name).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read the word pieces at {path} ({error})", "Give a file like BERT's vocab.txt."
            ) from error
        return cls(text.removesuffix("\n").split("\n"))

    def __reduce__(self) -> tuple[type[WordPieces], tuple[Sequence[str]]]:
        return WordPieces, (self.pieces,)

    def encode(self, text: str) -> Pieces:
        """The pieces of `text`, without special tokens."""
        if not (text.isascii() and text.isprintable()):
            return self._cut(text)
        ids: list[int] = []
        offsets: list[int] = []
        for word in _ASCII_WORD.finditer(text):
            known = self._known.get(word[0]) or self.remembered(word[0])
            ids += known.ids
            if len(known.ids) == 1:  # most are whole
                offsets += word.span()
            else:
                offsets += [word.start() + offset for offset in known.offsets]
        return Pieces(ids, offsets)

    def remembered(self, text: str) -> Pieces:
        """The pieces of a word or a tag: a text that comes again and again. Not to be altered."""
        found = self._known.get(text)
        if found is None:
            found = self._cut(text)
            if len(text) <= _LONGEST:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[text] = found
        return found

    def _cut(self, text: str) -> Pieces:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return Pieces(found.ids, list(chain.from_iterable(found.offsets)))

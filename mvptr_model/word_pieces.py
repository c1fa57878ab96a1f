"""Text to word pieces, as BERT's uncased models cut it (Devlin et al. 2019; Wu et al. 2016).

The work is done by `tokenizers`. One text at a time costs no more than many at once (22 us a caption, 24 in batches of 500),
starts no threads, and lets a faulty sample fail alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mvptr_data.errors import InputError
from mvptr_data.storage import Store

UNKNOWN = "[UNK]"
#: Tags whose pieces are remembered: detectors know 1,600, people invent more.
_REMEMBERED = 50_000


class Pieces(NamedTuple):
    """The word pieces of a text: their `ids`, and where each lies in it, as half-open code-point `offsets`."""

    ids: list[int]
    offsets: list[tuple[int, int]]


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
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token=UNKNOWN))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._remembered: dict[str, list[int]] = {}

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
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return Pieces(found.ids, found.offsets)

    def remembered_ids(self, text: str) -> list[int]:
        """The ids of a text that comes again and again, such as a tag."""
        found = self._remembered.get(text)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[text] = self.encode(text).ids
        return found

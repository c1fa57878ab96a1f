"""A word-piece vocabulary of one's own captions, so that nothing has to be downloaded (Wu et al. 2016, by `tokenizers`).

    words = train_word_pieces(captions, size=8000)

Rows of the result: `[PAD] [UNK] [CLS] [SEP] [MASK]`, then the characters by code point, each at a word's start and within
(`a`, `##a`), then what was merged, in the order of merging. The same captions in any order give the same vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from mvptr_data.errors import InputError
from mvptr_model.word_pieces import UNKNOWN, WordPieces

SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
#: BERT's; and of how many characters a vocabulary is made at most: it costs two rows each, and captions hold stray ones.
SIZE, ALPHABET = 30_522, 1_000
#: A word's repetitions that go to the trainer at once.
_REPEATED = 1_000


def train_word_pieces(
    texts: Iterable[str], *, size: int = SIZE, alphabet: int = ALPHABET, least: int = 2
) -> WordPieces:
    """At most `size` word pieces, of the `alphabet` most frequent characters; pieces are merged while they meet `least` times.

    Reads `texts` once and keeps its different words. Raises `InputError` for texts without a word, or a `size` with no room
    for the characters.
    """
    counts = _word_counts(texts)
    letters = _letters(counts, alphabet)
    if not letters:
        raise InputError("the captions have not one word", "Look at what the files hold.")
    fixed = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    if size < len(fixed):
        raise InputError(
            f"{size:,} word pieces have no room for the captions' {len(letters):,} characters",
            f"Ask for at least {len(fixed):,}, or for a smaller alphabet.",
        )
    tokenizer = Tokenizer(WordPiece(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=least,
        # Left to itself, the trainer numbers continuing characters in the order of a hash map, another in each run.
        special_tokens=fixed,
        initial_alphabet=list(letters),
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(counts, frozenset(letters)), trainer)
    ids = tokenizer.get_vocab()
    return WordPieces(sorted(ids, key=ids.__getitem__))


def _word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word comes, as `WordPieces` finds words."""
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return counts


def _letters(counts: Counter[str], most: int) -> tuple[str, ...]:
    """The most frequent characters, by code point. Where they are equally frequent, those of lower code point."""
    frequencies: Counter[str] = Counter()
    for word, count in counts.items():
        for letter in word:
            frequencies[letter] += count
    kept = sorted(frequencies, key=lambda letter: (-frequencies[letter], letter))[: max(0, most)]
    return tuple(sorted(kept))


def _repeated(counts: Counter[str], letters: frozenset[str]) -> Iterator[str]:
    """Each word as often as it comes; none that has other letters: it is unknown, and must not count as one without them."""
    for word in sorted(counts):
        if letters.issuperset(word):
            for done in range(0, counts[word], _REPEATED):
                yield " ".join([word] * min(_REPEATED, counts[word] - done))

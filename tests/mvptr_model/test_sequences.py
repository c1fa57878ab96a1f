"""Sequences without padding against lists of tensors."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvptr_model.sequences import Sequences, bounds, ranges

lengths_of = st.lists(st.integers(0, 4), min_size=1, max_size=5)


def sequences(lengths: list[int], first: int = 0) -> tuple[Sequences, list[Tensor]]:
    """Numbered places [M, 1], and the sequences one by one."""
    states = torch.arange(first, first + sum(lengths))[:, None]
    return Sequences(states, torch.tensor(lengths)), list(states.split(lengths))


def same(found: Sequences, expected: list[Tensor]) -> bool:
    return found.lengths.tolist() == [len(one) for one in expected] and torch.equal(found.states, torch.cat(expected))


@given(lengths_of, st.data())
def test_some_of_the_sequences(lengths: list[int], data: st.DataObject) -> None:
    found, apart = sequences(lengths)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    assert same(found.rows(torch.tensor(rows)), [apart[row] for row in rows])
    middle = data.draw(st.integers(0, len(lengths) - 1))
    assert same(found.rows(slice(middle, None)), apart[middle:])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5))
def test_one_after_another_and_apart_again(lengths: list[tuple[int, int]]) -> None:
    one, ones = sequences([first for first, _ in lengths])
    other, others = sequences([second for _, second in lengths], first=100)
    both = one.then(other)
    assert same(both, [torch.cat(pair) for pair in zip(ones, others, strict=True)])
    first, second = both.split(one.lengths)
    assert same(first, ones)
    assert same(second, others)


@given(lengths_of, st.data())
def test_a_part_of_each(lengths: list[int], data: st.DataObject) -> None:
    found, apart = sequences(lengths)
    starts = [data.draw(st.integers(0, length)) for length in lengths]
    ends = [data.draw(st.integers(start, length)) for start, length in zip(starts, lengths, strict=True)]
    counts = torch.tensor(ends) - torch.tensor(starts)
    expected = [one[start:end] for one, start, end in zip(apart, starts, ends, strict=True)]
    assert same(found.part(torch.tensor(starts), counts), expected)


@given(lengths_of)
def test_padded(lengths: list[int]) -> None:
    found, apart = sequences(lengths, first=1)
    states, mask = found.padded()
    assert states.shape == (len(lengths), max(lengths), 1)
    for row, there, one in zip(states, mask, apart, strict=True):
        assert torch.equal(row[there], one)
        assert there.tolist() == [True] * len(one) + [False] * (max(lengths) - len(one))
        assert not row[~there].any()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_first_places(lengths: list[int]) -> None:
    found, apart = sequences(lengths)
    assert torch.equal(found.first, torch.stack([one[0] for one in apart]))
    assert bounds(found.lengths).tolist() == [*found.starts.tolist(), sum(lengths)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=5))
def test_ranges(pairs: list[tuple[int, int]]) -> None:
    expected = [number for begin, length in pairs for number in range(begin, begin + length)]
    begins, lengths = (torch.tensor([pair[part] for pair in pairs], dtype=torch.int64) for part in (0, 1))
    assert ranges(begins, lengths).tolist() == expected


def test_parts_of_a_whole() -> None:
    one, ones = sequences([2, 0])
    other, others = sequences([3], first=50)
    assert same(Sequences.concatenated([one, other]), [*ones, *others])

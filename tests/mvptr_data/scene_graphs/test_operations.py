"""Matrix products by numpy's BLAS: right, the same for every batch, on one thread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.scene_graphs.operations import NumpyBlasOps, OneThread, find_openblas
from mvptr_data.scene_graphs.pipeline import load_pipeline

OPERATIONS = NumpyBlasOps()
#: (inner, columns) of the products in the bundled model, and of its parent with wider networks.
SHAPES = ((384, 288), (288, 288), (96, 64), (64, 1024), (96, 50), (64, 61), (192, 192))


def arrays(rows: int, inner: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return (
        random.standard_normal((rows, inner), dtype=np.float32),
        random.standard_normal((columns, inner), dtype=np.float32),
    )


@pytest.mark.parametrize("rows", [1, 40, 500])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_it_multiplies(rows: int, transposed: tuple[bool, bool]) -> None:
    left, right = arrays(rows, 96, 50)
    right = right.T
    first, second = (np.ascontiguousarray(a.T) if t else a for a, t in zip((left, right), transposed, strict=True))
    product = OPERATIONS.gemm(first, np.ascontiguousarray(second), trans1=transposed[0], trans2=transposed[1])
    np.testing.assert_allclose(product, left.astype(np.float64) @ right, rtol=0, atol=1e-4)
    out = np.empty_like(product)
    OPERATIONS.gemm(first, np.ascontiguousarray(second), out=out, trans1=transposed[0], trans2=transposed[1])
    np.testing.assert_allclose(out, product, rtol=0, atol=1e-4)


@given(st.sampled_from(SHAPES), st.integers(1, 400), st.integers(0, 600))
def test_a_row_does_not_depend_on_the_others(shape: tuple[int, int], rows: int, first: int) -> None:
    left, right = arrays(1_000, *shape)
    whole = OPERATIONS.gemm(left, right, trans2=True)
    part = OPERATIONS.gemm(left[first : first + rows], right, trans2=True)
    assert part.tobytes() == whole[first : first + rows].tobytes()


def test_one_thread_while_any_multiplies_and_then_as_before() -> None:
    openblas = find_openblas()
    if openblas is None:
        pytest.skip("numpy is not linked with OpenBLAS")
    get_threads, set_threads = openblas
    before = get_threads()
    set_threads(2)
    try:
        context = OneThread()
        with pytest.raises(KeyError), context:
            with context:
                assert get_threads() == 1
            assert get_threads() == 1
            raise KeyError
        assert get_threads() == 2
    finally:
        set_threads(before)


def test_all_networks_of_a_pipeline_use_it() -> None:
    nodes = [node for _, component in load_pipeline().pipeline for node in component.model.walk()]
    assert len(nodes) > 10
    assert all(isinstance(node.ops, NumpyBlasOps) for node in nodes)

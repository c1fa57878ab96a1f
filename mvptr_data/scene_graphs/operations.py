"""Matrix products for the caption parser: numpy's BLAS in place of thinc's, on one thread.

Most of the time of tagging and parsing goes into products of some hundred rows. numpy's wheels bring OpenBLAS, with kernels
for the processor at hand; the BLIS that thinc brings is about three times slower there (36 against 100 GFLOPS on one AMD
EPYC core, 1,400 x 288 by 288 x 288, float32).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock

import numpy as np
from spacy.language import Language
from thinc.api import NumpyOps
from thinc.types import Floats2d

#: Below so many multiplications OpenBLAS may take kernels for small matrices, which add up in another order.
SMALL_PRODUCT = 1_000_000
#: Fewer rows than this are never multiplied: one row would be a product with a vector, which is added up otherwise too.
FEWEST_ROWS = 32

#: What OpenBLAS calls its functions depends on who built it.
OPENBLAS_NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")


class NumpyBlasOps(NumpyOps):
    """thinc's operations on the CPU, multiplying with numpy.

    A row of a product is bit for bit the same whatever other rows are multiplied with it: small products are filled up with
    rows of zeros until no special kernel applies. So a caption's parse does not depend on its batch.
    """

    def __init__(self) -> None:
        super().__init__(use_blis=False)

    def gemm(
        self, x: Floats2d, y: Floats2d, out: Floats2d | None = None, trans1: bool = False, trans2: bool = False
    ) -> Floats2d:
        """`x @ y`, either of them transposed first; written to `out` if given."""
        with one_thread:
            rows, inner = x.shape
            needed = max(FEWEST_ROWS, SMALL_PRODUCT // max(1, y.size) + 1)
            if trans1 or out is not None or rows >= needed:
                return super().gemm(x, y, out=out, trans1=trans1, trans2=trans2)
            filled = np.zeros((needed, inner), dtype=x.dtype)
            filled[:rows] = x
            return super().gemm(filled, y, trans2=trans2)[:rows]


class OneThread:
    """Context that keeps numpy's OpenBLAS to the calling thread; does nothing for other libraries.

    Its threads wait for each other by spinning: on cores that other processes use as well, they take several times the CPU
    time, and captions are spread over processes anyway. The setting is the process's. The first of several threads to
    enter changes it, the last to leave gives it back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._usual = 1
        self._get, self._set = find_openblas() or (lambda: 1, lambda threads: None)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._usual = self._get()
                self._set(1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._usual)


def find_openblas() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """OpenBLAS's functions that tell and set its number of threads; None where numpy is linked with another library."""
    module = find_spec("numpy.linalg._umath_linalg")
    if module is None or module.origin is None:
        return None
    library = ctypes.CDLL(module.origin)  # functions of the libraries it is linked with are found as well
    for name in OPENBLAS_NAMES:
        if hasattr(library, name.format("set_num_threads")):
            return library[name.format("get_num_threads")], library[name.format("set_num_threads")]
    return None


#: One for the process, as the setting is.
one_thread = OneThread()


def multiply_with_numpy(nlp: Language) -> None:
    """Makes all networks of a pipeline that compute on the CPU use `NumpyBlasOps`."""
    operations = NumpyBlasOps()
    for _, component in nlp.pipeline:
        model = getattr(component, "model", None)
        for node in model.walk() if model is not None else ():
            if isinstance(node.ops, NumpyOps):
                node.ops = operations

"""Memory of the process, kept between steps.

A step on a CPU takes and gives back gigabytes. glibc hands blocks of megabytes back to the system at once and gets them
again, page by page, filled with zeros: 13 % of a step at base size (`benchmarks/pretrain.py`).
"""

from __future__ import annotations

import ctypes

#: malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """From now on, freed memory is kept for what this process asks for next. False where malloc is not glibc's: nothing is
    changed there."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))

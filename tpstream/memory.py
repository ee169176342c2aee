"""How a process that handles streams looks after its memory: garbage seldom, and little kept of what was freed."""

from __future__ import annotations

import ctypes
import gc

GC_YOUNG = 100_000
"""Objects made and not freed between two looks for garbage: a batch makes tens of thousands that live a moment."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3)."""

KEPT_BYTES = 16 * 1024 * 1024
"""Freed memory at the top of an arena that stays for the next to ask."""

LARGE_BYTES = 32 * 1024 * 1024
"""From here on a block is mapped for itself. Fetch responses are below it: pages that come and go with each of them
are a tenth of all CPU (measured)."""


def tune() -> None:
    """Set this process up. Call it once, before there is much.

    Python looks at all that it holds each time a quarter more is there, keys of tables among it. glibc by itself makes
    up to eight arenas a core, and keeps what each of them has had: 30 to 60 MB of a worker's, whose batches are of all
    sizes (measured). With another C library that is as it is.
    """
    gc.set_threshold(GC_YOUNG, 50, 100)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)

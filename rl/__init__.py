"""Neuromodulated CAVIA: context meta-reinforcement learning by neuromodulation (arXiv 2111.00134)."""

import ctypes
import os
import sys

# Workers and the learner's threads each compute alone. These must be set before torch is imported; the worker
# processes inherit them.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def _keep_freed_memory():
    """Have glibc keep what is freed for the next iteration, which asks for the same again.

    It would return large blocks to the system at once, and the system would clear every page anew: a sixth of a
    Half-Cheetah iteration. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
    mallopt(arena_max, 1)  # the arenas of threads return their memory whatever the thresholds are
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc accepts
    mallopt(trim_threshold, 2**31 - 1)


_keep_freed_memory()

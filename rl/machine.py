"""What this process may use of its machine: memory and cores."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

GIGABYTE = 1e9  # bytes


def memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or fewer where a control group (a container, a job
    of a cluster) allows fewer.

    Args:
        root: where the files of the Linux kernel begin.
    """
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group, unified in _groups("memory", root):
        # A group without a limit says "max", or names a number beyond any machine.
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int((group / ("memory.max" if unified else "memory.limit_in_bytes")).read_text()))
    return min(sizes)


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: the machine's, or fewer where it is bound to some of them (`taskset`, a job of a
    cluster), or where a control group allows fewer seconds of computing a second.

    Args:
        root: where the files of the Linux kernel begin.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    for group, unified in _groups("cpu", root):
        names = ["cpu.max"] if unified else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        # A group without a limit says "max" or −1.
        with contextlib.suppress(OSError, ValueError):
            quota, period = (int(word) for name in names for word in (group / name).read_text().split())
            if quota > 0 and period > 0:
                counts.append(math.ceil(quota / period))
    return min(counts)


def _groups(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """The control groups that may limit this process, its own and all around it: pairs of their folder and whether it
    is one of the unified hierarchy (version 2).
    """
    groups = root / "sys" / "fs" / "cgroup"
    with contextlib.suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            folder = groups / controller if controllers else groups
            place = folder / group.lstrip("/")
            # Inside of a container the path may be the host's, and the container's own group the root.
            yield from ((place, not controllers) for place in (place, *place.parents) if place.is_relative_to(folder))


def readable(size: float) -> str:
    """A size in bytes as people read it."""
    return f"{size / GIGABYTE:,.1f} GB"

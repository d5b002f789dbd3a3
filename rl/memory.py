"""How much memory there is."""

import contextlib
import os
from pathlib import Path

GIGABYTE = 1e9  # bytes


def size(root=Path("/")):
    """Bytes of memory that this process may use: the machine's, or fewer where a control group (a container, a job
    of a cluster) allows fewer.

    Args:
        root: where the files of the Linux kernel begin.
    """
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits(root):
        # A group without a limit says "max", or names a number beyond any machine.
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text()))
    return min(sizes)


def _limits(root):
    """The files that may hold a limit: those of this process's group and of all groups around it."""
    groups = root / "sys" / "fs" / "cgroup"
    with contextlib.suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                folder, name = groups, "memory.max"
            elif "memory" in controllers.split(","):
                folder, name = groups / "memory", "memory.limit_in_bytes"
            else:
                continue
            place = folder / group.lstrip("/")
            # Inside of a container the path may be the host's, and the container's own group the root.
            yield from (place / name for place in (place, *place.parents) if place.is_relative_to(folder))


def told(size):
    """A size in bytes as people read it."""
    return f"{size / GIGABYTE:,.1f} GB"

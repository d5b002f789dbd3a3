"""How much memory there is, and what a run needs of it."""

import os

import pytest

from rl import memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "group, limits, expected",
    [
        ("", {}, MACHINE),
        ("0::/job/step\n", {"job/memory.max": "1000000\n", "job/step/memory.max": "max\n"}, 1_000_000),
        # In a container: the path is the host's, the container's own group stands at the root.
        ("0::/docker/1234\n", {"memory.max": "2000000\n"}, 2_000_000),
        ("3:cpu:/\n2:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "3000000\n"}, 3_000_000),
        ("2:memory:/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, MACHINE),
    ],
)
def test_a_control_group_can_allow_less_memory(tmp_path, group, limits, expected):
    written(tmp_path / "proc" / "self" / "cgroup", group)
    for name, text in limits.items():
        written(tmp_path / "sys" / "fs" / "cgroup" / name, text)
    assert memory.size(tmp_path) == expected


def test_of_memory_that_nobody_tells_of(tmp_path):
    assert memory.size(tmp_path) == MACHINE

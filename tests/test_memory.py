import subprocess
import sys

import pytest

from tests.helpers import ROOT

PROGRAM = """
import rl, resource, threading
from pathlib import Path
import torch

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def grown():
    before = resident()
    kept = [torch.ones(1 << 20) for _ in range(50)]
    in_use = resident() - before
    del kept
    print(in_use, resident() - before)

grown()
grown()
thread = threading.Thread(target=grown)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again():
    """In MiB, whatever the size of a page: memory stays with the process when it is freed, and is what is used next, in
    a thread, too."""
    lines = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    first, *later = ([float(number) for number in line.split()] for line in lines)
    assert first == pytest.approx([200, 200], abs=20)
    assert later == [pytest.approx([0, 0], abs=20)] * 2

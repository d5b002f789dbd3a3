import subprocess
import sys

import pytest

from tests.support.helpers import ROOT

PROGRAM = """
import resource, threading
from rl import start
start.keep_freed_memory()
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

def repeated():
    for _ in range(4):
        grown()

repeated()
thread = threading.Thread(target=repeated)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again():
    """In MiB, whatever the size of a page: 50 blocks of 4 MiB stay with the process when they are freed, and are used
    later, in a thread, too. All seven later times need no more than half as much again: freed memory lies in pieces.
    """
    lines = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    grown = [[float(number) for number in line.split()] for line in lines]
    assert grown[0][0] == pytest.approx(200, abs=20)
    assert all(in_use - kept < 20 for in_use, kept in grown)
    assert len(grown) == 8 and sum(in_use for in_use, _ in grown[1:]) < 100

import subprocess
import sys

import pytest

from tests.helpers import ROOT

PROGRAM = """
import rl, resource, threading
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    kept = [torch.ones(1 << 20) for _ in range(50)]
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

def repeated():
    print(*(faults() for _ in range(4)))

repeated()
thread = threading.Thread(target=repeated)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again():
    # 200 MiB are 51,200 pages (half as many faults where the system clears two at a time); later, and in a thread, they
    # come from what was freed before.
    lines = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    main, thread = ([int(number) for number in line.split()] for line in lines)
    assert main[0] > 10000
    assert sum(main[2:] + thread[2:]) < main[0] / 10

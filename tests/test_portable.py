"""The program of `make test-portable`, on tests that tell where they run."""

import os
import subprocess
import sys
import uuid

import pytest

from rl.errors import UserError
from tests import portable
from tests.support.helpers import ROOT, alive, becomes


def run(tmp_path, body, *arguments, **environment):
    """The finished program on one test with this body."""
    path = tmp_path / "test_place.py"
    path.write_text(f"import os\n\n\ndef test_place():\n    {body}\n", encoding="utf-8")
    command = [sys.executable, "-m", "tests.portable", *arguments, "--", "-p", "no:cacheprovider", str(path)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.slow
def test_each_variant_surrounds_the_tests_and_is_told_of(tmp_path):
    marker, seen = uuid.uuid4().hex, tmp_path / "seen"
    body = (
        "siblings = open(f'/proc/{os.getppid()}/task/{os.getppid()}/children').read().split()\n"
        "    where = os.environ['ATEN_CPU_CAPABILITY'], len(os.sched_getaffinity(0)), len(siblings)\n"
        f"    print(*where, file=open({str(seen)!r}, 'a'))"
    )
    done = run(tmp_path, body, MARKER=marker, ATEN_CPU_CAPABILITY="unchanged")
    assert done.returncode == 0, done.stdout + done.stderr
    cores = len(os.sched_getaffinity(0))
    expected = [("default", cores, 1), ("avx2", cores, 1), ("unchanged", 1, 1), ("unchanged", cores, 1 + portable.BUSY)]
    assert seen.read_text().splitlines() == [" ".join(map(str, row)) for row in expected]
    told = [line.split() for line in done.stdout.splitlines()[-4:]]
    assert [line[:5] for line in told] == [[name, "1", "passed,", "0", "failed,"] for name in portable.VARIANTS]
    assert not alive(marker)


@pytest.mark.slow
def test_the_busy_processes_end_with_a_program_that_is_killed(tmp_path):
    marker = uuid.uuid4().hex
    done = run(tmp_path, "os.kill(os.getppid(), 9)", "busy", MARKER=marker)
    assert done.returncode == -9
    assert becomes(lambda: not alive(marker))


@pytest.mark.slow
def test_a_variant_in_which_a_test_fails_decides_the_exit_status(tmp_path):
    body = "assert os.environ.get('ATEN_CPU_CAPABILITY') != 'avx2'"
    done = run(tmp_path, body, "avx2", "one-core", ATEN_CPU_CAPABILITY="")
    assert done.returncode == 1
    failed, passed = done.stdout.splitlines()[-2:]
    assert failed.split()[:5] == ["avx2", "0", "passed,", "1", "failed,"]
    assert passed.split()[:5] == ["one-core", "1", "passed,", "0", "failed,"]


@pytest.mark.parametrize("name, left", [("baseline", ()), ("avx2", ("X86_V3",))])
def test_numpy_uses_no_kernels_beyond_the_variants(name, left):
    """And is told of none that it does not have: it would warn, and warnings are errors."""
    program = "import numpy; print(*numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    environment = os.environ | portable.VARIANTS[name][0]
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(left) & set(portable.FOUND)


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match=r"^avx1024: expected variants of baseline, avx2, one-core, busy$"):
        portable.main(["avx1024", "--", "test_place.py"])

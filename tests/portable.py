"""Run the tests as other processors and busier machines would.

    python -m tests.portable [VARIANT ...] [-- PYTEST ARGUMENTS]

    python -m tests.portable baseline avx2 -- tests/algorithm/test_trpo.py

Without names of variants all are run. Tests marked slow are left out, as by `make test`, but for `-m ""` among pytest's
arguments. Ends with a line for each variant; the exit status is 1 where one of them failed.

Libraries that do not know a variable of another's kernels, or processors that lack them anyway, take no notice: the
variant is then the plain suite.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from rl.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# What NumPy uses on this processor, and what it would use if a variant did not surround this process.
FOUND = [
    *np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
    *os.environ.get("NPY_DISABLE_CPU_FEATURES", "").split(),
]
BUSY = 4
# Keeps a core busy for as long as its parent lives.
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def without(features):
    """NPY_DISABLE_CPU_FEATURES for those of the features that NumPy uses on this processor: it warns of others."""
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(name for name in FOUND if name.startswith(features))}


@contextlib.contextmanager
def one_core():
    """This process, and those that it starts, on the first of its cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def busy():
    """Beside processes that want all cores."""
    with contextlib.ExitStack() as stack:
        for _ in range(BUSY):
            stack.callback(stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP])).kill)
        yield


# name -> (environment variables, what surrounds the run)
VARIANTS = {
    # The kernels that every x86-64 processor has.
    "baseline": (
        {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "OPENBLAS_CORETYPE": "Nehalem",
            **without(("X86_V3", "X86_V4", "AVX")),
        },
        contextlib.nullcontext,
    ),
    "avx2": (
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
            **without(("X86_V4", "AVX512")),
        },
        contextlib.nullcontext,
    ),
    "one-core": ({}, one_core),
    "busy": ({}, busy),
}


def main(arguments):
    """Run variants and tell of each; returns the exit status."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:end], arguments[end + 1 :]
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        raise UserError(f"{unknown[0]}: expected variants of {', '.join(VARIANTS)}")
    told, worst = [], 0
    for name in names or VARIANTS:
        print(f"{name} …", flush=True)
        environment, surroundings = VARIANTS[name]
        with surroundings():
            status, line = run(options, environment)
        told.append(f"{name:<10}{line}")
        worst |= status != 0
    print(*told, sep="\n")
    return int(worst)


def run(options, environment):
    """Run pytest in an environment with more variables: (exit status, counts and seconds in words)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-m", "not slow", *options]
        status = subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode
        counts = ElementTree.parse(report).find("testsuite").attrib if report.exists() else {}
    total, failed, errors, skipped = (int(counts.get(key, 0)) for key in ("tests", "failures", "errors", "skipped"))
    passed = total - failed - errors - skipped
    words = f"{passed:>5} passed, {failed + errors} failed, {skipped} skipped in {time.monotonic() - started:.0f} s"
    return status, words if counts else f"did not run (status {status})"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"portable: {error}", file=sys.stderr)
        sys.exit(2)

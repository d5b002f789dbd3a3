import os
import re
import signal

import pytest
from jaxtyping import install_import_hook

import tests.support.annotations

# Before anything of the package is imported. Tests of whole programs do without (`make test` sets TYPES=unchecked), and
# so do workers: a run takes four times as long when every call is checked.
if os.environ.get("TYPES") != "unchecked":
    install_import_hook("rl", f"{tests.support.annotations.__name__}.checked")

from rl import start

# As main.py, which many tests call, does before torch is imported.
start.compute_alone()
# As a learner on a GPU does. PyTorch looks at it once, and tests that come before such a learner may use the GPU.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import torch

from tests.support.tiny_runs import TinyRuns

# Where the suite was started by nohup, this signal is ignored, and every process of a test would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config):
    """Hide GPUs from tests that do not ask for one, and from the programs that they start: these are the CPU's. CUDA
    looks for devices when it is first used.
    """
    if not re.search(r"(?<!not )\bcuda\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item):
    """Tests marked `cuda` need a device."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device is available to this PyTorch, or pytest -m cuda has not asked for one")


@pytest.fixture(autouse=True)
def one_torch_thread():
    """As in main.py: the tests of equal bytes compare with workers, which use one thread each."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def signals_as_before():
    """One of several ranks ignores all signals once it has ended; tests that come later are to get them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def coarse_pictures():
    """A quarter of the pixels a row: most pictures of tests are only asked whether they are there."""
    from rl.plots import style

    style._SETTINGS["savefig.dpi"] = 55


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Tiny real runs and evaluations, made once: name -> (the run's log folder, the evaluation's folder)."""
    return TinyRuns(tmp_path_factory.mktemp("tiny"))

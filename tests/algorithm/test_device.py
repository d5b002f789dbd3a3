"""What a CPU can tell of other devices: nothing in the learner may assume where tensors are.

On "meta" tensors have shapes and no numbers. Elementwise operations refuse tensors of two devices there, matrix
products do not; so this finds most of what a GPU would refuse. The rest, and the numbers, tests/cuda/ asks a GPU.
"""

import os
from types import SimpleNamespace

import pytest
import torch

from rl import machine
from rl.algorithm import chunks
from rl.algorithm.batch import Batch, prepare_updates
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from rl.algorithm.trpo import TRPO
from rl.config import Config
from rl.errors import UserError
from rl.run import device as devices
from rl.run.setup import Setup
from tests import conftest
from tests.support.helpers import COMBINATIONS, FAST, made_up_episodes, random_params, small_policy

OPTIONS = Options(fast_lr=0.1, **FAST)


def computed(monkeypatch, device, policy, num_tasks, distinct, options):
    """What the outer step computes of a chunk whose batches are moved to a device: a list of tensors."""

    def prepare_and_move(*arguments):
        batches, retries = prepare_updates(*arguments)  # which needs numbers
        return [Batch(*(None if part is None else part.to(device) for part in batch)) for batch in batches], retries

    monkeypatch.setattr(chunks, "prepare_updates", prepare_and_move)
    before, after = (made_up_episodes(policy, num_tasks, seed=seed, distinct=distinct) for seed in (0, 1))
    vector = flatten(random_params(policy)).to(device)
    chunk = Chunk(policy, vector, (before, after), options, products=6, dtype=torch.float64)
    figures = [chunk.loss, chunk.gradient, chunk.inner_losses, *chunk.terms[0].old, chunk.terms[0].weights]
    return [*figures, chunk.kl_hessian_product(vector), *chunk.evaluate(vector), *chunk.loss_and_gradient(vector)]


UNUSUAL = [
    (1, None, {}),  # the context's derivatives as a matrix
    (2, 4, {}),  # observations that repeat
    (2, None, {"fvp_subsample": 0.5}),
    (2, None, {"first_order": True}),
]


@pytest.mark.parametrize(
    "head, layer, adaptation, num_tasks, distinct, changes",
    [(*made, 3, None, {}) for made in COMBINATIONS]
    + [(head, "soft", adaptation, *how) for how in UNUSUAL for head, adaptation in
       (("normal", "cavia"), ("categorical", "cavia"), ("normal", "maml"))],
)  # fmt: skip
def test_a_chunk_stays_on_its_device(monkeypatch, head, layer, adaptation, num_tasks, distinct, changes):
    made = (small_policy(head, layer, adaptation), num_tasks, distinct, OPTIONS._replace(**changes))
    here, there = (computed(monkeypatch, device, *made) for device in ("cpu", "meta"))
    assert {tensor.device.type for tensor in there} == {"meta"}
    assert [(tensor.shape, tensor.dtype) for tensor in there] == [(tensor.shape, tensor.dtype) for tensor in here]


def test_tensors_of_two_devices_are_noticed():
    for mixed in (torch.add, lambda a, b: torch.where(a > 0, a, b), lambda a, b: torch.cat([a, b])):
        with pytest.raises(RuntimeError, match="not on the expected device"):
            mixed(torch.ones(2, 2, device="meta"), torch.ones(2, 2))


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A machine that says that it has one; what is set for it is set back afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (1e9, 6e9))
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32 = False


def test_the_learner_goes_to_the_device_asked_for(pretended_gpu):
    for name, memory in (("cuda", 0.0), ("auto", 0.0), ("cuda", 2.0)):
        compute = Setup(Config(device=name, learner_memory=memory)).learner().compute
        assert compute.device.type == "cuda"
        assert compute.memory == (memory * 1e9 or 3e9)
    assert Setup(Config(device="cpu")).learner().compute.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_bare_learner_is_the_one_that_programs_use(pretended_gpu, name):
    setup = Setup(Config(device=name, hidden_size=100, num_layers=2))
    bare = MetaLearner(setup.policy, setup.options, TRPO(setup.outer_options), device=name)
    how = [(each.rows, each.work, each.threads) for each in (bare.compute, setup.learner().compute)]
    # Of 6 GB, half, at 256 bytes a row and unit: 3e9 / (256 · 200) = 58593.75 rows.
    assert how == [(58593, 20e9, 1) if name == "cuda" else (2048, 100e6, machine.cores())] * 2


@pytest.mark.parametrize("function", ["set_device", "mem_get_info"])
def test_a_gpu_that_cannot_be_used_is_one_line(pretended_gpu, monkeypatch, function):
    def refuse(place):
        raise torch.AcceleratorError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors"
        )

    monkeypatch.setattr(torch.cuda, function, refuse)
    words = r"GPU 0 cannot be used: CUDA error: CUDA-capable device\(s\) is/are busy or unavailable; expected"
    with pytest.raises(UserError, match=f"^--device cuda: {words} [^\\n]*$"):
        Setup(Config(device="cuda")).learner()


@pytest.mark.parametrize(
    "expression, sees",
    [("", False), ("not slow", False), ("not cuda", False), ("cuda", True), ("slow and cuda", True)],
)
def test_only_tests_that_ask_for_a_gpu_see_one(monkeypatch, expression, sees):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    conftest.pytest_configure(SimpleNamespace(option=SimpleNamespace(markexpr=expression)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("3" if sees else "")


@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_rounds_as_asked_for_and_adds_in_a_fixed_order(pretended_gpu, tf32):
    torch.backends.cuda.matmul.allow_tf32 = not tf32
    Setup(Config(device="cpu", tf32=tf32)).learner()
    assert torch.backends.cuda.matmul.allow_tf32 is not tf32 and not torch.are_deterministic_algorithms_enabled()
    Setup(Config(device="cuda", tf32=tf32)).learner()
    assert torch.backends.cuda.matmul.allow_tf32 is tf32 and torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^--device cuda: no CUDA device is available to this PyTorch; .*$"):
        Setup(Config(device="cuda")).learner()
    assert devices.chosen("auto") == torch.device("cpu")

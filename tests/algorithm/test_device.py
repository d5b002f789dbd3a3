"""The learner on a second device, made up of CPU memory: nothing in it may assume where tensors are.

A `Remote` tensor says that it lives elsewhere (on "meta", where autograd works and nobody stores numbers) and keeps
its numbers in a tensor of the CPU that only `Device` sees. As on a GPU, an operation takes tensors of one device
alone, but for CPU tensors without axes, and what arrives at the CPU was copied there by name or as a single number.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from rl.algorithm.chunks import Options
from rl.algorithm.jacobians import flatten
from rl.algorithm.metalearner import MetaLearner
from rl.config import Config
from rl.experiment import build
from rl.experiment.folders import load_policy, save_policy
from tests.support.helpers import COMBINATIONS, FAST, made_up_episodes, random_params, small_policy

THERE = torch.device("meta")
CPU = torch.device("cpu")
OPTIONS = Options(fast_lr=0.1, cg_damping=1e-3, cg_iters=5, **FAST)
READ = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class Remote(torch.Tensor):
    """A tensor on the made-up device; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=THERE,
        )  # fmt: skip

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return dispatch(function, arguments, options or {})


class Device(TorchDispatchMode):
    """While it lasts, what is made on "meta" or moved there becomes `Remote`."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return dispatch(function, arguments, options or {})


def dispatch(function, arguments, options):
    """Run an operation where its tensors are, or refuse to."""
    tensors = [value for value in tree_leaves((arguments, options)) if isinstance(value, torch.Tensor)]
    remote = any(isinstance(tensor, Remote) for tensor in tensors)
    moves = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if remote and not moves:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, Remote) and tensor.dim()]
        assert not strangers, f"{function} takes tensors of two devices"
    device = options.get("device")
    there = remote if device is None else torch.device(device) == THERE
    if remote and device is not None and not there:
        assert function is torch.ops.aten._to_copy.default, f"{function} makes a tensor of the CPU from a remote one"
    if there and device is not None:
        options = options | {"device": CPU}
    inside = tree_map_only(Remote, lambda tensor: tensor.inner, (arguments, options))
    result = function(*inside[0], **inside[1])
    if not there or function in READ:
        return result
    result = tree_map_only(torch.Tensor, Remote, result)
    return return_and_correct_aliasing(function, arguments, options, result) if remote else result


def step(policy, params, before, after, device, options=OPTIONS, memory=float("inf")):
    """An outer step with chunks of two tasks."""
    learner = MetaLearner(policy, options, memory, rows=48, threads=1, dtype=torch.float64, device=device)
    if learner.device == CPU:
        return learner.step(params, before, after)
    with Device() as mode:
        # A dispatch mode belongs to a thread.
        learner.pool = ThreadPoolExecutor(1, initializer=mode.__class__.__enter__, initargs=(mode,))
        return learner.step(params, before, after)


def made_up(head, layer, adaptation, num_tasks=3, distinct=None):
    policy = small_policy(head, layer, adaptation)
    return (
        policy,
        random_params(policy),
        *(made_up_episodes(policy, num_tasks, seed=seed, distinct=distinct) for seed in (0, 1)),
    )


def test_the_made_up_device_is_as_strict_as_a_real_one():
    with Device():
        there = torch.ones(3).to(THERE)
        assert isinstance(there, Remote) and there.device == THERE
        assert isinstance(there.new_zeros(2), Remote) and isinstance(torch.zeros(2, device=there.device), Remote)
        assert float((there * 2).sum()) == 6.0
        assert torch.equal((there + torch.tensor(1.0)).cpu(), torch.full((3,), 2.0))
        assert type(there.cpu()) is torch.Tensor
        own = there.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((own * own * own).sum(), own, create_graph=True)
        assert torch.equal(torch.autograd.grad(gradient.sum(), own)[0].cpu(), torch.full((3,), 6.0))
        for mixed in (
            lambda: there + torch.ones(3),
            lambda: torch.cat([there, torch.ones(3)]),
            lambda: there * torch.ones(3).requires_grad_(),
            lambda: there[torch.tensor([0, 1])],
        ):
            with pytest.raises(AssertionError, match="two devices"):
                mixed()
        for read in (lambda: there.numpy(), lambda: there.tolist()):
            with pytest.raises((RuntimeError, TypeError, NotImplementedError, AssertionError)):
                read()


@pytest.mark.parametrize("head, layer, adaptation", COMBINATIONS)
def test_the_step_is_the_same_on_another_device(head, layer, adaptation):
    policy, params, before, after = made_up(head, layer, adaptation)
    (here, report), (there, report_there) = (step(policy, params, before, after, device) for device in (CPU, THERE))
    assert report.accepted and report_there == report
    # θ is back where it came from, ready for the sampler and the file.
    assert all(type(value) is torch.Tensor and value.device == CPU for value in there.values())
    assert torch.equal(flatten(there), flatten(here))


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
@pytest.mark.parametrize(
    "num_tasks, distinct, memory, changes",
    [
        (1, None, float("inf"), {}),  # the context's derivatives as a matrix
        (2, 4, float("inf"), {}),  # observations that repeat
        (2, None, 0, {}),  # nothing kept
        (2, None, float("inf"), {"fvp_subsample": 0.5}),
        (2, None, float("inf"), {"first_order": True}),
    ],
)
def test_so_are_the_less_usual_steps(num_tasks, distinct, memory, changes, adaptation):
    made = made_up("normal", "soft", adaptation, num_tasks, distinct)
    options = OPTIONS._replace(**changes)
    (here, report), (there, report_there) = (step(*made, device, options, memory) for device in (CPU, THERE))
    assert report.accepted and report_there == report
    assert torch.equal(flatten(there), flatten(here))


def test_nothing_of_the_step_stays_behind():
    policy, params, before, after = made_up("categorical", "soft", "cavia", distinct=4)
    with Device():
        learner = MetaLearner(policy, OPTIONS, rows=1000, threads=1, dtype=torch.float64, device=THERE)
        learner._map = lambda function, items: list(map(function, items))
        (chunk,) = learner.chunks(before, after)
        vector = flatten(params).to(THERE)
        results = [*chunk.linearize(vector), chunk.product(vector), *chunk.evaluate(vector)]
        tensors = [*results, *chunk.before, *chunk.after, *chunk.old, chunk.old_log_prob, chunk.observation_weights]
        assert all(isinstance(tensor, Remote) for tensor in tensors)


def test_parts_put_the_learner_on_the_device_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (1e9, 6e9))
    for name, memory in (("cuda", 0.0), ("auto", 0.0), ("cuda", 2.0)):
        learner = build.Experiment(Config(device=name, learner_memory=memory)).learner()
        assert learner.device.type == "cuda"
        assert learner.memory == (memory * 1e9 or 3e9)
    assert build.Experiment(Config(device="cpu")).learner().device == CPU


def test_policies_after_a_step_elsewhere_can_be_saved(tmp_path):
    policy, params, before, after = made_up("normal", "soft", "cavia")
    new, _ = step(policy, params, before, after, THERE)
    save_policy(tmp_path / "policy-0.pt", new)
    loaded = load_policy(tmp_path / "policy-0.pt", policy)
    assert list(loaded) == list(new)
    assert all(torch.equal(loaded[name], new[name].to(loaded[name].dtype)) for name in new)

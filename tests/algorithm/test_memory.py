"""Nothing that an outer step allocates outlives it."""

import contextlib
import gc
import itertools

import pytest
import torch

from rl.algorithm import trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import GraphJacobian, flatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from rl.policies import NONLINEARITIES
from tests.support import malloc
from tests.support.helpers import FAST, LAYERS, made_up_episodes, random_params, small_policy

OPTIONS = Options(fast_lr=0.3, **FAST)
STEPS = 10
hooks = torch.autograd.graph.saved_tensors_hooks


def hooks_that_keep_graphs(pack, unpack):
    """What is saved is kept with its own graph, as it once was."""

    def keep(tensor):
        pack(tensor)
        return tensor

    return hooks(keep, unpack)


GLIBC = pytest.mark.skipif(not malloc.KNOWN, reason="glibc's, from 2.33 on")


def allocated():
    """Bytes in use, garbage that Python has yet to find left out."""
    gc.collect()
    account = malloc.account()
    return account.uordblks + account.hblkhd


def grown(adaptation, layer, nonlinearity, steps=STEPS):
    """(bytes by which some outer steps, after three, make the process grow; bytes that one keeps for its products)

    The lesser growth of two such rounds: what is allocated once, such as by the test runner's threads, is no leak.
    """
    policy = small_policy("normal", layer, adaptation, nonlinearity=nonlinearity, hidden_sizes=(16, 16))
    params = random_params(policy, dtype=torch.float32)
    before, after = (made_up_episodes(policy, 2, 20, 10, seed=seed) for seed in (0, 1))
    learner = MetaLearner(policy, OPTIONS, trpo.TRPO(trpo.Options(cg_iters=2, ls_max_steps=2)), threads=1)
    accounts = []
    for count in (3, steps, steps):
        for _ in range(count):
            learner.step(params, before, after)
        accounts.append(allocated())
    growth = min(later - earlier for earlier, later in itertools.pairwise(accounts))
    (term,) = Chunk(policy, flatten(params), (before, after), OPTIONS, products=3).terms
    return growth, term.curvature.jacobian.nbytes


# By hand, and by graphs of a context, of all weights and of a flat gate; the rest is slow.
QUICK = {("cavia", "soft", "tanh"), ("cavia", "soft", "silu"), ("maml", "soft", "relu"), ("maml", "hard", "tanh")}
EVERY = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(("cavia", "maml"), LAYERS, NONLINEARITIES)
]


@GLIBC
@pytest.mark.parametrize("adaptation, layer, nonlinearity", EVERY)
def test_memory_is_flat(adaptation, layer, nonlinearity):
    growth, size = grown(adaptation, layer, nonlinearity)
    assert growth < size / 4


@GLIBC
def test_a_leak_would_be_seen(monkeypatch):
    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", hooks_that_keep_graphs)
    growth, size = grown("maml", "soft", "tanh", steps=10)
    assert growth > 10 * size / 4


@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
def test_hooks_change_no_bit(adaptation, monkeypatch):
    """Products by graph have the same bytes with detached tensors, with such that keep graphs, without hooks."""
    policy = small_policy("normal", "soft", adaptation, nonlinearity="silu")
    params, direction = random_params(policy), flatten(random_params(policy, seed=9))
    before, after = (made_up_episodes(policy, seed=seed) for seed in (0, 1))
    figures = []
    for made in (hooks, hooks_that_keep_graphs, lambda pack, unpack: contextlib.nullcontext()):
        monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", made)
        chunk = Chunk(policy, flatten(params), (before, after), OPTIONS, products=3, dtype=torch.float64)
        assert isinstance(chunk.terms[0].curvature.jacobian, GraphJacobian)
        figures.append((chunk.loss, chunk.gradient, *(chunk.kl_hessian_product(direction) for _ in range(2))))
    for found in figures[1:]:
        assert all(torch.equal(value, other) for value, other in zip(found, figures[0], strict=True))

"""The outer step on a GPU is the CPU's, but for rounding. Every test runs on the CPU too, which proves its code."""

import gc
import operator

import pytest
import torch

from rl.algorithm import baseline, trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from rl.algorithm.terms import Budget, Term
from rl.config import Config
from rl.run.setup import Setup
from tests.support.devices import DEVICES
from tests.support.helpers import COMBINATIONS, FAST, made_up_episodes, random_params, small_policy

OPTIONS = Options(fast_lr=0.1, **FAST)
# Three iterations of conjugate gradient hardly amplify rounding; ten would.
OUTER = trpo.Options(cg_damping=1e-3, cg_iters=3)
# No sum of these small steps has more terms: 3 tasks of 24 rows, layers of at most 10 inputs and context parameters.
ROUNDINGS = 100


def made_up(head, layer, adaptation, distinct=None):
    policy = small_policy(head, layer, adaptation)
    before, after = (made_up_episodes(policy, seed=seed, distinct=distinct) for seed in (0, 1))
    return policy, random_params(policy), before, after


def step(made, options=OPTIONS, dtype=torch.float64, device="cpu", rows=48, memory=float("inf"), outer=OUTER):
    """θ's change [P] by an outer step, in float64 on the CPU, and the step's metrics."""
    policy, params, before, after = made
    compute = {"memory": memory, "rows": rows, "threads": 1, "dtype": dtype, "device": device}
    new, metrics = MetaLearner(policy, options, trpo.TRPO(outer), **compute).step(params, before, after)
    assert {value.device.type for value in new.values()} == {"cpu"}
    return flatten(new) - flatten(params), metrics


def distance(left, right):
    """Between two changes of θ, relative to the second."""
    return float((left - right).norm() / right.norm())


def bounds(monkeypatch, made, options, dtype):
    """How far rounding to a type may move the step: (θ's change, relative; the loss, the divergence).

    The arithmetic of a type is off by up to ε in each operation, and what a chunk hands over (losses, gradients,
    products) by up to `ROUNDINGS`·ε of its largest entry; away from θ_old losses and divergences are differences of
    terms of about 1, and off by as much of that. So all of it is moved by so much at random, in float64, and the step
    is taken again: the largest change of four tries is the bound. Of a step's own roundings most cancel: they reach a
    tenth of it.

    The baseline is made before, in float64 whatever the type, and its equations A c = m amplify rounding a
    thousandfold and more. Entries of A = XᵀX + ρI and m = Xᵀy are sums of 24 products, and elimination of F = 10
    unknowns has the effect of other A, by (3 F)·ε of |L||U| at most (Higham 2002, theorem 9.3). By Cauchy and Schwarz
    neither the sums' terms nor |L||U| are more than √(Aᵢᵢ Aⱼⱼ), those of m no more than √Aᵢᵢ |y|; `ROUNDINGS` is more
    than 24 + 3·10. So A and m are moved by that, and c by what it makes of them.
    """
    relative, double = (ROUNDINGS * torch.finfo(kind).eps / 2 for kind in (dtype, torch.float64))
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

    def moved(value, terms=0.0):
        return value + relative * value.abs().max().clamp_min(terms) * noise(*value.shape)

    def moved_fit(design, targets):
        coefficients, retries = fit(design, targets)
        assert retries == 0
        rows, wanted = design.flatten(1, 2), targets.flatten(1, 2)[..., None]
        system = rows.mT @ rows + baseline.RIDGE * torch.eye(rows.shape[-1], dtype=rows.dtype)
        size = system.diagonal(dim1=1, dim2=2).sqrt()[..., None]
        of_system = size * size.mT * noise(*system.shape) @ coefficients[..., None]
        of_moment = size * wanted.norm(dim=1, keepdim=True) * noise(*size.shape)
        change = torch.linalg.solve(system, double * (of_moment - of_system))
        return coefficients + change.squeeze(-1), retries

    fit, product, evaluate = baseline.fit, Chunk.kl_hessian_product, Chunk.evaluate
    loss_and_gradient = Term._loss_and_gradient

    exact = step(made, options)
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "fit", moved_fit)
        patch.setattr(Term, "_loss_and_gradient", lambda *given: tuple(map(moved, loss_and_gradient(*given))))
        patch.setattr(Chunk, "kl_hessian_product", lambda *given: moved(product(*given)))
        patch.setattr(Chunk, "evaluate", lambda *given: [moved(value, 1.0) for value in evaluate(*given)])
        for _ in range(4):
            stepped = step(made, options)
            assert stepped[1]["trpo/step_size"] == exact[1]["trpo/step_size"]
            found.append(deviations(stepped, exact))
    return [max(same) for same in zip(*found, strict=True)]


def deviations(stepped, reference):
    """How far one step is from another: the same three figures."""
    (change, found), (exact, expected) = stepped, reference
    losses = [metrics["loss/outer_rl"] - metrics["trpo/improvement"] for metrics in (found, expected)]
    return distance(change, exact), abs(losses[0] - losses[1]), abs(found["trpo/kl"] - expected["trpo/kl"])


def assert_equal_to_rounding(monkeypatch, made, dtype, device, options=OPTIONS, memory=float("inf")):
    """A step with all tasks in one chunk, in a type and on a device, against float64 on the CPU in chunks of two."""
    exact = step(made, options)
    assert exact[1]["trpo/step_size"] > 0
    stepped = step(made, options, dtype, device, rows=10**6, memory=memory)
    for found, bound in zip(deviations(stepped, exact), bounds(monkeypatch, made, options, dtype), strict=True):
        assert found < bound
    assert stepped[1]["trpo/step_size"] == exact[1]["trpo/step_size"]


# On the CPU, soft gates are enough to prove the tests' code.
QUICK = [pytest.param(*made, marks=() if made[1] == "soft" else pytest.mark.slow) for made in COMBINATIONS]
EVERY = [
    pytest.param(*made, device, marks=marks)
    for device, marks in (("cpu", ()), ("cuda", pytest.mark.cuda))
    for made in COMBINATIONS
    if device == "cuda" or made[1] == "soft"
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("head, layer, adaptation, device", EVERY)
def test_the_step_equals_the_cpus_to_rounding(monkeypatch, head, layer, adaptation, dtype, device):
    assert_equal_to_rounding(monkeypatch, made_up(head, layer, adaptation), dtype, device)


@DEVICES
@pytest.mark.parametrize("adaptation", ["cavia", "maml"])
@pytest.mark.parametrize(
    "head, distinct, memory, changes",
    [
        ("normal", 4, float("inf"), {}),  # observations that repeat
        ("categorical", 4, float("inf"), {}),
        ("normal", None, 0, {}),  # nothing kept
        ("normal", None, float("inf"), {"fvp_subsample": 0.5}),
        ("normal", None, float("inf"), {"first_order": True}),
    ],
)
def test_so_do_the_less_usual_steps(monkeypatch, head, distinct, memory, changes, adaptation, device):
    made = made_up(head, "soft", adaptation, distinct)
    assert_equal_to_rounding(monkeypatch, made, torch.float32, device, OPTIONS._replace(**changes), memory)


def test_the_bound_is_missed_by_factors_rounded_to_ten_bits(monkeypatch):
    """As TensorFloat-32 has them: θ rounded so moves the step further than float32 may."""
    made = made_up("normal", "soft", "cavia")
    policy, params, before, after = made
    rounded = {name: value.float().view(torch.int32).add(2**12).bitwise_and(-(2**13)).view(torch.float32).double()
               for name, value in params.items()}  # fmt: skip
    exact, _ = step(made)
    of_change, *_ = bounds(monkeypatch, made, OPTIONS, torch.float32)
    assert distance(step((policy, rounded, before, after))[0], exact) > of_change


@pytest.mark.parametrize("distinct", [None, 4])
@pytest.mark.parametrize("head, layer, adaptation", QUICK)
def test_the_bounds_hold_for_a_baseline_of_other_libraries(monkeypatch, head, layer, adaptation, distinct):
    """As a GPU's: its sums have another order, and so has the elimination. Both are shuffled here."""
    made, fit = made_up(head, layer, adaptation, distinct), baseline.fit
    exact, found = step(made), bounds(monkeypatch, made, OPTIONS, torch.float64)
    generator = torch.Generator().manual_seed(0)

    def shuffled_fit(design, targets):
        rows, columns = (torch.randperm(size, generator=generator) for size in (24, design.shape[-1]))
        shuffled = design.flatten(1, 2)[:, rows][..., columns].reshape(design.shape)
        coefficients, retries = fit(shuffled, targets.flatten(1, 2)[:, rows].reshape(targets.shape))
        return coefficients[:, columns.argsort()], retries

    monkeypatch.setattr(baseline, "fit", shuffled_fit)
    for _ in range(3):
        largest = max(map(operator.truediv, deviations(step(made, rows=10**6), exact), found))
        # It differs, and there is room for what else a GPU does in another order.
        assert 0 < largest < 0.5


@pytest.mark.parametrize("wrong", ["a step is left out", "the ridge is a thousandth larger"])
def test_the_bounds_are_missed_by_another_baseline(monkeypatch, wrong):
    made, fit = made_up("normal", "soft", "cavia"), baseline.fit
    exact, found = step(made), bounds(monkeypatch, made, OPTIONS, torch.float64)

    def wrong_fit(design, targets):
        if wrong == "a step is left out":
            (design := design.clone())[:, 0, 0] = 0
            return fit(design, targets)
        return fit(design, targets, 1.001 * baseline.RIDGE)

    monkeypatch.setattr(baseline, "fit", wrong_fit)
    assert all(map(operator.gt, deviations(step(made), exact), found))


@DEVICES
@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_tf32_is_asked_for(tf32, device):
    """1 + 2⁻¹² and its sums of 256 are exact in float32; TensorFloat-32 has ten bits and makes 1 of it."""
    Setup(Config(device=device, tf32=tf32)).learner()
    factors = torch.full((256, 256), 1 + 2.0**-12, device=device)
    product = (factors @ torch.ones_like(factors)).cpu()
    exact = 256 * (1 + 2.0**-12)
    # The multipliers for it came with compute capability 8.
    rounds = tf32 and device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    assert (product == (256.0 if rounds else exact)).all()


@DEVICES
@pytest.mark.parametrize("head", ["normal", "categorical"])
def test_the_same_step_has_the_same_bytes(head, device):
    """Of many steps that see few observations: additions in any order would show."""
    Setup(Config(device=device)).learner()
    policy = small_policy(head, "soft", "cavia")
    before, after = (made_up_episodes(policy, 3, 50, 40, seed=seed, distinct=7) for seed in (0, 1))
    made = (policy, random_params(policy), before, after)
    outer = OUTER._replace(cg_iters=10)
    reference, metrics = step(made, OPTIONS, torch.float32, device, rows=10**6, outer=outer)
    for _ in range(5):
        change, other = step(made, OPTIONS, torch.float32, device, rows=10**6, outer=outer)
        assert torch.equal(change, reference) and other == metrics


def held(device):
    """Bytes of tensors that live on a device; on the CPU those that Python knows of."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    storages = [value.untyped_storage() for value in gc.get_objects() if type(value) is torch.Tensor]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@DEVICES
@pytest.mark.parametrize("layer, adaptation", [("plain", "cavia"), ("soft", "cavia"), ("soft", "maml")])
def test_learner_memory_bounds_what_a_device_keeps(layer, adaptation, device):
    """Six chunks, and room for the products of two and a half of them."""
    policy = small_policy("normal", layer, adaptation, hidden_sizes=(64, 64))
    before, after = (made_up_episodes(policy, 6, 50, 20, seed=seed) for seed in (0, 1))
    vector = flatten(random_params(policy)).to(device)

    def keep(size):
        """(bytes that six chunks came to hold, how many keep anything, bytes of what one keeps)"""
        started, budget = held(device), Budget(size)
        tasks = [[episodes.tasks(k, k + 1) for episodes in (before, after)] for k in range(6)]
        chunks = [Chunk(policy, vector, pair, OPTIONS, 4, budget, None, torch.float64, device) for pair in tasks]
        kept = [chunk.terms[0].curvature.jacobian.nbytes for chunk in chunks if chunk.terms[0].curvature]
        return held(device) - started, len(kept), max(kept, default=0)

    keep(0)  # what libraries keep from their first use is no matter here
    without, count, _ = keep(0)
    assert count == 0
    everything, count, size = keep(float("inf"))
    assert count == 6
    some, count, _ = keep(2.5 * size)
    assert count == 2
    # The figure leaves out what is small: sums over rows, the outputs' own derivatives.
    assert some - without < 1.25 * 2.5 * size
    # Of a graph's tensors all are counted as it is made, also those that it lets go of; Python knows of none.
    assert everything - without > 5 * size or adaptation == "maml"

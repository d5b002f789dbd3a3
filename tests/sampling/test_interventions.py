import pytest
import torch

from rl.algorithm.inner_loop import Adapted, unadapted
from rl.sampling.interventions import IntervenedPolicy, Intervention, other_tasks
from tests.support.helpers import literal_forward, random_params, small_policy

TASKS = [{"leaf": 0}, {"leaf": 0}, {"leaf": 1}]
CONTEXT = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.7]], dtype=torch.float64)
OBSERVATIONS = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture(params=["soft", "hard"])
def policy(request):
    return small_policy(layer=request.param)


def acted(policy, modulation="normal", context="normal", seed=0):
    """The means that an intervened policy gives."""
    params = random_params(policy)
    changed = IntervenedPolicy(policy, Intervention(modulation, context, seed), unadapted(policy, params, 3), TASKS)
    return changed(params, CONTEXT, OBSERVATIONS).mean


def means(policy, context, gates=None):
    return policy(random_params(policy), context, OBSERVATIONS, gates=gates).mean


def gates(policy, context):
    record = {}
    policy(random_params(policy), context, OBSERVATIONS, record)
    return {name: record[f"{name}.gates"] for name in policy.layer_names}


def test_others():
    assert other_tasks(TASKS) == [2, 2, 0]
    assert other_tasks([{"a": 1}, {"a": 2}]) == [1, 0]
    with pytest.raises(ValueError, match="no two different"):
        other_tasks([{"a": 1}, {"a": 1}])


def test_no_intervention_changes_nothing(policy):
    torch.testing.assert_close(acted(policy), means(policy, CONTEXT), rtol=0, atol=0)


def test_gates_of_one_make_a_plain_policy(policy):
    params = random_params(policy)
    plain = {name.replace(".std.", "."): value for name, value in params.items()}
    for task in range(3):
        expected = literal_forward(small_policy().architecture, plain, CONTEXT[task], OBSERVATIONS[task])
        torch.testing.assert_close(acted(policy, "ones")[task], expected)


def test_frozen_gates_are_those_before_adaptation(policy):
    expected = means(policy, CONTEXT, gates(policy, torch.zeros_like(CONTEXT)))
    torch.testing.assert_close(acted(policy, "frozen"), expected, rtol=0, atol=0)
    assert not torch.equal(expected, means(policy, CONTEXT))


def test_swapped_gates_are_another_tasks(policy):
    expected = means(policy, CONTEXT, gates(policy, CONTEXT[[2, 2, 0]]))
    torch.testing.assert_close(acted(policy, "swapped"), expected, rtol=0, atol=0)


def test_shuffled_gates_are_permuted_over_units(policy):
    params = random_params(policy)
    changed = IntervenedPolicy(policy, Intervention("shuffled", "normal", 3), unadapted(policy, params, 3), TASKS)
    imposed = {}
    forward = policy.layer

    def spy(params, name, inputs, context, record, given=None):
        if given is not None:
            imposed[name] = given
        return forward(params, name, inputs, context, record, given)

    policy.layer = spy
    changed(params, CONTEXT, OBSERVATIONS)
    policy.layer = forward
    computed = gates(policy, CONTEXT)
    for name, size in zip(policy.layer_names, (5, 4), strict=True):
        assert sorted(changed.permutations[name].tolist()) == list(range(size))
        for unit, source in enumerate(changed.permutations[name].tolist()):
            assert torch.equal(imposed[name][..., unit], computed[name][..., source])
    assert any(order.tolist() != sorted(order.tolist()) for order in changed.permutations.values())


def test_contexts(policy):
    zero = torch.zeros_like(CONTEXT)
    torch.testing.assert_close(acted(policy, context="zero"), means(policy, zero), rtol=0, atol=0)
    torch.testing.assert_close(acted(policy, context="swapped"), means(policy, CONTEXT[[2, 2, 0]]), rtol=0, atol=0)
    expected = means(policy, zero, gates(policy, CONTEXT))
    torch.testing.assert_close(acted(policy, context="gates"), expected, rtol=0, atol=0)


def test_both_at_once(policy):
    zero = torch.zeros_like(CONTEXT)
    expected = means(policy, CONTEXT[[2, 2, 0]], gates(policy, zero))
    torch.testing.assert_close(acted(policy, "frozen", "swapped"), expected, rtol=0, atol=0)
    # Swapped gates are the other task's own, whatever the context is.
    expected = means(policy, zero, gates(policy, CONTEXT[[2, 2, 0]]))
    torch.testing.assert_close(acted(policy, "swapped", "zero"), expected, rtol=0, atol=0)


def test_weights_of_a_task_are_swapped_where_they_are_its_own():
    """MAML: after an update every task has weights of its own."""
    policy = small_policy(layer="soft", adaptation="maml")
    shared, own = random_params(policy), random_params(policy, seed=1, num_tasks=3)
    changed = IntervenedPolicy(policy, Intervention("swapped"), Adapted(shared, None), TASKS)
    record = {}
    policy({name: value[[2, 2, 0]] for name, value in own.items()}, None, OBSERVATIONS, record)
    gates = {name: record[f"{name}.gates"] for name in policy.layer_names}
    expected = policy(own, None, OBSERVATIONS, gates=gates).mean
    torch.testing.assert_close(changed(own, None, OBSERVATIONS).mean, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "modulation, context, swaps_tasks, imposes_gates",
    [
        ("normal", "normal", False, False),
        ("normal", "zero", False, False),
        ("normal", "gates", False, True),
        ("normal", "swapped", True, False),
        ("swapped", "normal", True, True),
        ("ones", "zero", False, True),
    ],
)
def test_what_an_intervention_needs(modulation, context, swaps_tasks, imposes_gates):
    intervention = Intervention(modulation, context)
    assert (intervention.swaps_tasks, intervention.imposes_gates) == (swaps_tasks, imposes_gates)

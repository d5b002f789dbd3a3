import numpy as np
import pytest
import torch

from rl.policies import GATES, NONLINEARITIES, Categorical, Normal
from rl.policies.heads import MIN_LOG_STD, MultiCategorical
from tests.support.helpers import (
    COMBINATIONS,
    LAYERS,
    LITERAL_GATES,
    literal_distribution,
    literal_forward,
    literal_kl,
    literal_log_prob,
    literal_log_probs,
    random_params,
    small_policy,
)

EVERY = pytest.mark.parametrize("head, layer, adaptation", COMBINATIONS)
DOUBLE = torch.float64


def observations_and_context(policy, num_tasks=3, num_rows=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sizes = policy.architecture
    observations = torch.randn(num_tasks, num_rows, sizes.observation_size, generator=generator, dtype=DOUBLE)
    context = torch.randn(num_tasks, sizes.num_context_params, generator=generator, dtype=DOUBLE)
    return observations, context if sizes.num_context_params else None


def own(values, k):
    """Task k's share of something with a leading task axis, or None of None."""
    return None if values is None else values[k]


@EVERY
def test_parameters_have_the_published_names_order_and_shapes(head, layer, adaptation):
    # 3 observations (+ 2 context parameters), hidden 5 and 4, 3 modulators, 2 actions, or 2 and 3.
    inputs = 5 if adaptation == "cavia" else 3
    expected = [("sigma", (2,))] if head == "normal" else []
    for name, columns, rows in (("layer1", inputs, 5), ("layer2", 5, 4)):
        if layer == "plain":
            expected += [(f"{name}.weight", (rows, columns)), (f"{name}.bias", (rows,))]
        else:
            expected += [(f"{name}.std.weight", (rows, columns)), (f"{name}.std.bias", (rows,))]
            expected += [(f"{name}.in_nm.weight", (3, columns)), (f"{name}.in_nm.bias", (3,))]
            expected += [(f"{name}.out_nm.weight", (rows, 3)), (f"{name}.out_nm.bias", (rows,))]
    last = "mu" if head == "normal" else "layer3"
    actions = 5 if head == "choices" else 2
    expected += [(f"{last}.weight", (actions, 4)), (f"{last}.bias", (actions,))]
    policy = small_policy(head, layer, adaptation)
    assert list(policy.shapes.items()) == expected
    params = policy.initial_params(np.random.default_rng(0))
    assert [(name, tuple(value.shape)) for name, value in params.items()] == expected


def test_initial_weights_are_xavier_uniform_and_the_rest_zero():
    policy = small_policy("normal", "hard", hidden_sizes=(60, 70), nm_size=50)
    for name, value in policy.initial_params(np.random.default_rng(0)).items():
        assert value.dtype == torch.float32
        if not name.endswith("weight"):
            assert (value == 0).all()
            continue
        bound = (6 / sum(value.shape)) ** 0.5
        assert (value.abs() <= bound).all()
        if value.numel() > 3000:
            # Uniform on ±bound: mean 0, standard deviation bound/√3; 3,000 draws know both to a few percent.
            assert value.abs().max() > 0.99 * bound
            assert abs(value.mean()) < 0.05 * bound
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_gates_start_at_their_bias():
    # With zero modulator weights the logits are the bias: tanh(2) = 0.964 opens a soft gate.
    policy = small_policy("normal", "soft", nm_gate_bias=2.0)
    published = small_policy("normal", "soft")
    params, without = (made.initial_params(np.random.default_rng(0)) for made in (policy, published))
    for name, value in params.items():
        if name.endswith(".out_nm.bias"):
            assert (value == 2).all() and (without[name] == 0).all()
        else:
            assert torch.equal(value, without[name])
        if "in_nm" in name:
            value.zero_()
    record = {}
    policy(params, torch.zeros(1, 2), torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)), record)
    assert record["layer1.gates"].flatten().tolist() == pytest.approx([0.96403] * 20, abs=1e-5)


def test_initial_context_is_zero_or_absent():
    like = torch.ones(1, dtype=DOUBLE)
    context = small_policy().initial_context(4, like)
    assert context.shape == (4, 2) and context.dtype == DOUBLE and (context == 0).all()
    assert small_policy(adaptation="maml").initial_context(4, like) is None


@EVERY
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_forward_equals_the_literal_equations(head, layer, adaptation, nonlinearity):
    policy = small_policy(head, layer, adaptation, nonlinearity=nonlinearity)
    params = random_params(policy)
    observations, context = observations_and_context(policy)
    found = policy(params, context, observations)
    for k in range(3):
        literal = literal_forward(policy.architecture, params, own(context, k), observations[k])
        if head != "normal":
            literal = literal_log_probs(policy.architecture, literal)
        torch.testing.assert_close(next(iter(found))[k], literal, rtol=0, atol=1e-12)
    if head == "normal":
        torch.testing.assert_close(found.log_std, params["sigma"].reshape(1, 1, 2))


@EVERY
def test_a_leading_task_axis_equals_a_loop_over_tasks(head, layer, adaptation):
    policy = small_policy(head, layer, adaptation)
    params = random_params(policy, num_tasks=3)
    observations, context = observations_and_context(policy)
    together = policy(params, context, observations)
    for k in range(3):
        params_k = {name: value[k] for name, value in params.items()}
        alone = policy(params_k, None if context is None else context[k : k + 1], observations[k : k + 1])
        for batched, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batched[k], single[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("head", ["normal", "categorical"])
def test_a_gate_of_one_is_the_plain_policy(head, gate):
    policy, plain = small_policy(head, gate), small_policy(head, "plain")
    params = random_params(policy)
    for i in (1, 2):
        params[f"layer{i}.out_nm.weight"].zero_()
        params[f"layer{i}.out_nm.bias"].fill_(40.0)  # tanh(40) = 1 in float64
    plain_params = {name.replace(".std", ""): value for name, value in params.items() if "_nm" not in name}
    assert set(plain_params) == set(plain.shapes)
    observations, context = observations_and_context(policy)
    for gated, expected in zip(
        policy(params, context, observations), plain(plain_params, context, observations), strict=True
    ):
        torch.testing.assert_close(gated, expected, rtol=0, atol=1e-13)


@EVERY
def test_a_bound_policy_is_the_policy(head, layer, adaptation):
    """But for rounding: one product with the bias added to it need not have the last bits of a product and a sum."""
    policy = small_policy(head, layer, adaptation)
    params = random_params(policy)
    observations, context = observations_and_context(policy)
    before = {name: value.clone() for name, value in params.items()}
    act = policy.bind(params, context)
    for found, expected in zip(act(observations), policy(params, context, observations), strict=True):
        # Layers sum up to 8 terms of about 1, each rounded to 2⁻⁵³.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert all(torch.equal(params[name], value) for name, value in before.items())


@pytest.mark.parametrize("layer", LAYERS)
def test_a_context_of_zero_is_the_policy_without_one(layer):
    policy, without = small_policy(layer=layer), small_policy(layer=layer, adaptation="maml")
    params = random_params(policy)
    # The context's columns stand after the observation's.
    cut = {name: value[:, :3] if value.shape != shape else value
           for (name, value), shape in zip(params.items(), without.shapes.values(), strict=True)}  # fmt: skip
    observations, context = observations_and_context(policy)
    found = policy(params, torch.zeros_like(context), observations)
    torch.testing.assert_close(found.mean, without(cut, None, observations).mean, rtol=0, atol=1e-13)


@pytest.mark.parametrize("head", ["normal", "categorical", "choices"])
def test_log_prob_and_kl_equal_torchs(head):
    policy = small_policy(head, "soft", **({} if head == "choices" else {"action_size": 4}))
    observations, context = observations_and_context(policy)
    params, other_params = random_params(policy, 0), random_params(policy, 1)
    found, other = policy(params, context, observations), policy(other_params, context, observations)
    generator = torch.Generator().manual_seed(0)
    if head == "normal":
        actions = torch.randn(3, 7, 4, generator=generator, dtype=DOUBLE)
    elif head == "categorical":
        actions = torch.randint(4, (3, 7), generator=generator)
    else:
        actions = torch.stack([torch.randint(count, (3, 7), generator=generator) for count in (2, 3)], -1)
    log_prob, kl = found.log_prob(actions), found.kl(other)
    for k in range(3):
        twin = literal_distribution(policy.architecture, params, context[k], observations[k])
        other_twin = literal_distribution(policy.architecture, other_params, context[k], observations[k])
        torch.testing.assert_close(log_prob[k], literal_log_prob(twin, actions[k]), rtol=0, atol=1e-11)
        torch.testing.assert_close(kl[k], literal_kl(twin, other_twin), rtol=0, atol=1e-11)
    assert (kl > 0).all()
    torch.testing.assert_close(found.kl(found.detach()), torch.zeros(3, 7, dtype=DOUBLE), rtol=0, atol=1e-14)


def test_normal_kl_by_hand():
    # N(1, 1) from N(0, e²): log e + (1 + 1)/(2e²) − ½ = ½ + e⁻²; the second dimension is equal, so its mean is half.
    left = Normal(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]]))
    right = Normal(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]]))
    assert float(left.kl(right)) == pytest.approx((0.5 + np.exp(-2)) / 2, abs=1e-7)


def test_log_std_is_clamped_from_below():
    policy = small_policy()
    params = random_params(policy)
    params["sigma"] = torch.tensor([-50.0, 0.5], dtype=DOUBLE)
    observations, context = observations_and_context(policy)
    assert policy(params, context, observations).log_std.flatten().tolist() == [MIN_LOG_STD, 0.5]
    assert pytest.approx(np.log(1e-6)) == MIN_LOG_STD


def test_at_puts_other_parameters_in_place():
    mean, log_std = torch.ones(1, 1, 2), torch.zeros(1, 1, 2)
    moved = Normal(mean, log_std).at(2 * mean, log_std + 1)
    assert type(moved) is Normal and torch.equal(moved.mean, 2 * mean) and torch.equal(moved.log_std, log_std + 1)
    logits = torch.tensor([[[1.0, 1.0 + float(np.log(3.0))]]])
    torch.testing.assert_close(Categorical(logits).at(logits).log_probs.exp(), torch.tensor([[[0.25, 0.75]]]))


def test_gather_repeats_rows():
    index = torch.tensor([[0, 2, 2, 1], [1, 1, 0, 2]])
    values = torch.arange(12.0).reshape(2, 3, 2)
    expected = torch.stack([values[k][index[k]] for k in range(2)])
    assert torch.equal(Categorical(values).gather(index).log_probs, expected)
    normal = Normal(values, torch.zeros(1, 1, 2)).gather(index)
    assert torch.equal(normal.mean, expected) and normal.log_std.shape == (1, 1, 2)


def test_normal_sample_scales_and_shifts_the_noise():
    # μ = (1, −1), σ = (1, 2): noise (½, ½) becomes (1.5, 0).
    distribution = Normal(torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[0.0, float(np.log(2.0))]]]))
    assert distribution.sample(torch.full((1, 1, 2), 0.5)).flatten().tolist() == pytest.approx([1.5, 0.0])


def test_categorical_sample_has_the_frequencies_of_the_distribution():
    probabilities = torch.tensor([0.125, 0.5, 0.0625, 0.3125])
    noise = (torch.arange(1600.0) + 0.5).reshape(1, -1) / 1600
    distribution = Categorical(probabilities.log().expand(1, 1600, 4))
    counts = torch.bincount(distribution.sample(noise).flatten(), minlength=4)
    assert counts.tolist() == [200, 800, 100, 500]


def test_several_choices_are_sampled_from_the_quantiles_of_normal_noise():
    # Of (¼, ¾) and (½, ⅛, ⅜): Φ(−1) = 0.16 is below ¼ and ½; Φ(0.2) = 0.58 lies in ½ to ⅝; Φ(±40) = 0 and 1.
    logs = torch.tensor([0.25, 0.75, 0.5, 0.125, 0.375]).log().expand(1, 4, 5)
    noise = torch.tensor([[[-1.0, -1.0], [0.2, 0.2], [-40.0, 40.0], [40.0, -40.0]]])
    drawn = MultiCategorical(logs, (2, 3))
    assert drawn.sample(noise)[0].tolist() == [[0, 0], [1, 1], [0, 2], [1, 0]]
    assert drawn.mode[0, 0].tolist() == [1, 0]
    torch.testing.assert_close(drawn.at(logs + 3).log_probs, logs)
    assert torch.equal(drawn.gather(torch.tensor([[3, 0]])).log_probs, logs[:, :2])


def test_categorical_sample_at_the_ends_of_the_noise():
    # Noise lies in [0, 1). At 0 an action of probability 0 is not chosen; just below 1 rounding of the cumulative sum
    # never leads past the last action (here ten times 0.1, which add up to 1.0000001 or 0.9999999 in float32).
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    impossible_first = torch.tensor([[[0.0, 0.25, 0.75]]]).log()
    assert Categorical(impossible_first).sample(torch.tensor([[0.0]])).item() == 1
    tenths = Categorical(torch.full((1, 1, 10), 0.1).log())
    assert tenths.sample(torch.tensor([[below_one]])).item() == 9
    short = Categorical(torch.tensor([[[0.4, 0.3, 0.2999]]]).log())
    assert short.sample(torch.tensor([[below_one]])).item() == 2


@EVERY
def test_recording_changes_nothing_and_shows_what_the_forward_used(head, layer, adaptation):
    policy = small_policy(head, layer, adaptation)
    params = random_params(policy)
    observations, context = observations_and_context(policy)
    record = {}
    recorded = policy(params, context, observations, record)
    for value, expected in zip(recorded, policy(params, context, observations), strict=True):
        assert torch.equal(value, expected)
    modulated = ["modulators", "logits", "gates", "preactivation"]
    per_layer = [*(modulated if layer != "plain" else []), "input", "output"]
    assert list(record) == [f"layer{i}.{part}" for i in (1, 2) for part in per_layer]
    assert record["layer1.output"].shape == (3, 7, 5) and record["layer2.output"].shape == (3, 7, 4)

    # The output layer and the second hidden layer follow from the recorded activations by hand.
    last = "mu" if head == "normal" else "layer3"
    outputs = record["layer2.output"] @ params[f"{last}.weight"].T + params[f"{last}.bias"]
    if head != "normal":
        outputs = literal_log_probs(policy.architecture, outputs)
    torch.testing.assert_close(next(iter(recorded)), outputs, rtol=0, atol=1e-12)
    part = "" if layer == "plain" else ".std"
    hidden = record["layer1.output"] @ params[f"layer2{part}.weight"].T + params[f"layer2{part}.bias"]
    if layer != "plain":
        assert record["layer2.modulators"].shape == (3, 7, 3)
        gates = record["layer2.modulators"] @ params["layer2.out_nm.weight"].T + params["layer2.out_nm.bias"]
        torch.testing.assert_close(record["layer2.logits"], gates, rtol=0, atol=1e-12)
        gates = LITERAL_GATES[layer](gates)
        torch.testing.assert_close(record["layer2.gates"], gates, rtol=0, atol=1e-12)
        hidden = hidden * gates
    torch.testing.assert_close(record["layer2.input"], hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(record["layer2.output"], torch.tanh(hidden), rtol=0, atol=1e-12)

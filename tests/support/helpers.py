"""Small made-up policies and episodes, and the plain twins that several tests hold the project's code against."""

import contextlib
import itertools
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch

from rl.policies import GATES, Architecture, make_policy
from rl.sampling.episodes import Episodes

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # s; bounds every wait for what must happen sooner or later, decides nothing else
# Every gate and nonlinearity written out; the tests run over the project's own tables, so a new one needs a twin here.
LITERAL_GATES = {
    "soft": torch.tanh,
    "hard": lambda z: 2.0 * (z >= 0).to(z.dtype) - 1,
    "ste": lambda z: (2.0 * (z >= 0).to(z.dtype) - 1 - z.clamp(-1, 1)).detach() + z.clamp(-1, 1),
}
LITERAL_NONLINEARITIES = {"relu": torch.relu, "tanh": torch.tanh, "silu": lambda y: y * torch.sigmoid(y)}
LAYERS = ("plain", *GATES)
COMBINATIONS = [
    *itertools.product(("normal", "categorical"), LAYERS, ("cavia", "maml")),
    *itertools.product(("choices",), ("soft",), ("cavia", "maml")),
]
# The straight-through gate's derivative is not its own: finite differences see nothing of it.
WITH_TRUE_DERIVATIVES = [combination for combination in COMBINATIONS if combination[1] != "ste"]
FAST = {"gamma": 0.9, "gae_lambda": 0.95}


@contextlib.contextmanager
def files_limited(size):
    """While entered, no file of this process can grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def small_policy(head="normal", layer="plain", adaptation="cavia", **sizes):
    """A policy of 3 observations, 2 actions (or choices among 2 and 3), 2 context parameters, hidden layers of 5 and 4
    units, 3 modulators.
    """
    return make_policy(
        Architecture(
            **{
                "observation_size": 3,
                "action_size": 5 if head == "choices" else 2,
                "choices": (2, 3) if head == "choices" else (),
                "discrete": head != "normal",
                "num_context_params": 2 if adaptation == "cavia" else 0,
                "hidden_sizes": (5, 4),
                "nonlinearity": "tanh",
                "nm_gate": None if layer == "plain" else layer,
                "nm_size": 0 if layer == "plain" else 3,
            }
            | sizes
        )
    )


def random_params(policy, seed=0, dtype=torch.float64, num_tasks=None):
    """θ with no entry at zero; with a leading task axis if `num_tasks` is given."""
    generator = torch.Generator().manual_seed(seed)
    leading = () if num_tasks is None else (num_tasks,)
    return {
        name: 0.5 * torch.randn(*leading, *shape, generator=generator, dtype=dtype)
        for name, shape in policy.shapes.items()
    }


def made_up_episodes(policy, num_tasks=3, horizon=6, num_episodes=4, seed=0, distinct=None):
    """Random float64 `Episodes` of unequal lengths; observations from a set of `distinct` ones if that is given."""
    rng = np.random.default_rng(seed)
    sizes = policy.architecture
    shape = (num_tasks, horizon, num_episodes)
    lengths = rng.integers(1, horizon + 1, (num_tasks, 1, num_episodes))
    lengths[:, :, 0] = horizon
    mask = (np.arange(horizon)[:, None] < lengths).astype(np.float64)
    observations = rng.normal(size=(*shape, sizes.observation_size))
    if distinct is not None:
        observations = rng.normal(size=(distinct, sizes.observation_size))[rng.integers(distinct, size=shape)]
    if sizes.choices:
        actions = rng.integers(sizes.choices, size=(*shape, len(sizes.choices))) * mask[..., None].astype(np.int64)
    elif sizes.discrete:
        actions = rng.integers(sizes.action_size, size=shape) * mask.astype(np.int64)
    else:
        actions = rng.normal(size=(*shape, sizes.action_size)) * mask[..., None]
    return Episodes(observations * mask[..., None], actions, rng.normal(size=shape) * mask, mask)


def literal_forward(architecture, params, context, observations):
    """The equations of the paper (arXiv 2111.00134, section 4) for one task, with [obs, φ] concatenated.

    Args:
        params: θ of this task, without a task axis.
        context: φ [C], or None.
        observations: [N, O]

    Returns:
        means or logits [N, A]
    """
    x = observations
    if context is not None:
        x = torch.cat([observations, context.expand(len(observations), -1)], dim=1)
    activate = LITERAL_NONLINEARITIES[architecture.nonlinearity]
    count = len(architecture.hidden_sizes)
    for i in range(1, count + 1):
        if architecture.nm_gate is None:
            x = activate(x @ params[f"layer{i}.weight"].T + params[f"layer{i}.bias"])
            continue
        seen = observations if i == 1 and architecture.nm_without_context else x
        modulators = torch.relu(seen @ params[f"layer{i}.in_nm.weight"].T + params[f"layer{i}.in_nm.bias"])
        logits = modulators @ params[f"layer{i}.out_nm.weight"].T + params[f"layer{i}.out_nm.bias"]
        gates = LITERAL_GATES[architecture.nm_gate](logits)
        x = activate((x @ params[f"layer{i}.std.weight"].T + params[f"layer{i}.std.bias"]) * gates)
    last = f"layer{count + 1}" if architecture.discrete else "mu"
    return x @ params[f"{last}.weight"].T + params[f"{last}.bias"]


def literal_distribution(architecture, params, context, observations):
    """The same as a torch distribution over the actions of each row; several choices as a list of them."""
    outputs = literal_forward(architecture, params, context, observations)
    if architecture.discrete:
        parts = [torch.distributions.Categorical(logits=part) for part in logits_of_choices(architecture, outputs)]
        return parts if architecture.choices else parts[0]
    return torch.distributions.Normal(outputs, params["sigma"].exp().expand_as(outputs))


def logits_of_choices(architecture, logits):
    """Logits [..., A] taken apart into those of each choice."""
    return logits.split(architecture.choices or architecture.action_size, -1)


def literal_log_probs(architecture, logits):
    """Normalised log-probabilities of each choice."""
    return torch.cat([part.log_softmax(-1) for part in logits_of_choices(architecture, logits)], -1)


def literal_kl(left, right):
    """KL(left ‖ right) [N]: averaged (as published) over a normal distribution's dimensions, summed over choices."""
    if isinstance(left, list):
        return sum(literal_kl(*pair) for pair in zip(left, right, strict=True))
    divergence = torch.distributions.kl_divergence(left, right)
    return divergence if divergence.dim() == 1 else divergence.mean(1)


def literal_log_prob(distribution, actions):
    """log π(a) [N], summed over action dimensions."""
    if isinstance(distribution, list):
        return sum(part.log_prob(actions[:, d]) for d, part in enumerate(distribution))
    log_prob = distribution.log_prob(actions)
    return log_prob if log_prob.dim() == 1 else log_prob.sum(1)


def alive(marker):
    """Process ids of all processes whose environment holds the text `marker`, zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def becomes(condition, seconds=PATIENCE):
    """Poll until condition() holds, at most `seconds`; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def only_run(folder):
    """The folder of the only run below `folder` (logs or saves)."""
    (run,) = folder.glob("*/*/*")
    return run

"""Compare the outer step with golden figures of the published algorithm.

    python -m tests.conformance [--device cuda] tests/golden/*.npz

    python -m tests.conformance --replay rl/logs/<env>/<method>/<run>/flight-<iteration>.npz

The first prints each figure's deviation, relative to its largest entry, and exits with status 1 where one exceeds its
bound: 1e-9, or 1e-4 for the whole TRPO step. All in float64.

Conjugate gradient amplifies rounding, in normal-maml a hundredfold an iteration: products that differ by 1e-14, as
those of two right programs do, move its step by 1e-3 after ten iterations, one time in twenty by 3e-2. So the whole
step of that file is held to 1e-1, which finds gross errors alone. After six iterations no step of the twelve moves by
more than 1e-9: these are held, to 1e-6, against a literal program that differentiates the divergence twice.

The second repeats the outer step that a run recorded because it met numbers that are not finite.
"""

import argparse
import json
import sys
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from rl.algorithm import baseline, inner_loop, reference, returns, trpo
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import flatten, unflatten
from rl.algorithm.metalearner import MetaLearner
from rl.algorithm.options import Options
from rl.algorithm.outer_steps import OUTER_STEPS
from rl.config import Parser
from rl.errors import UserError
from rl.policies import Architecture, make_policy
from rl.run import device as devices
from rl.sampling.episodes import Episodes

EXACT, EARLY_STEP, STEP = 1e-9, 1e-6, 1e-4
AMPLIFIED = {"normal-maml": 1e-1}  # the bounds of whole steps that are limited by rounding
EARLY = 6  # conjugate-gradient iterations after which no step is


def main(paths, device="cpu"):
    """Check every file, with the outer step on a device; returns the exit status."""
    worst = 0
    for path in paths:
        print(path)
        for name, deviation, bound in deviations(path, device):
            verdict = "ok" if deviation <= bound else "TOO LARGE"
            worst |= deviation > bound
            print(f"  {name:<32}{deviation:10.2e}  (bound {bound:.0e})  {verdict}")
    return int(worst)


def deviations(path, device="cpu"):
    """[(figure's name, deviation relative to its largest entry, its bound)] of a golden file."""
    golden, config = load(path, "config")
    try:
        return compare(path, golden, config, device)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a golden npz file: it lacks or misnames {error}") from None


def load(path, description):
    """The arrays of an npz file without pickles, and the JSON in one of them.

    Raises:
        UserError: it is something else.
    """
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        return arrays, json.loads(str(arrays[description]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, BadZipFile) as error:
        raise UserError(f"{path}: expected an npz file with {description!r}: {error}") from None


def compare(path, golden, config, device):
    """The rows of `deviations`."""
    policy = make_policy(architecture(config))
    params = {name: torch.from_numpy(golden[f"param/{name}"]) for name in policy.shapes}
    before, after = (episodes(golden, config, part) for part in ("train", "valid"))
    options = Options(
        gamma=config["gamma"],
        gae_lambda=config["tau"],
        fast_lr=config["fast_lr"],
    )
    outer = trpo.Options(**{name: config[name] for name in trpo.Options._fields})
    vector = torch.from_numpy(golden["input/hvp_vector"])
    computed = figures(policy, params, before, after, options, outer, vector, device)
    whole = AMPLIFIED.get(Path(path).stem, STEP)
    rows = []
    for name, value in computed.items():
        bound = whole if name.startswith(("step_", "after_step/")) else EXACT
        rows.append((name, deviation(value, golden[f"expected/{name}"]), bound))
    missing = {name for name in golden if name.startswith("expected/")} - {f"expected/{name}" for name in computed}
    if missing:
        raise UserError(f"{path}: figures that this check does not compute: {sorted(missing)}")
    early = outer._replace(cg_iters=EARLY)
    expected = literal_step_figures(policy, params, before, after, options, early)
    for name, value in step_figures(policy, params, before, after, options, early, device).items():
        rows.append((f"{EARLY}_iterations/{name}", deviation(value, expected[name]), EARLY_STEP))
    return rows


def deviation(value, expected):
    """The largest difference, relative to the largest expected entry."""
    value = value.cpu() if isinstance(value, torch.Tensor) else value
    scale = max(np.abs(np.asarray(expected)).max(), np.finfo(np.float64).tiny)
    return float(np.abs(np.asarray(value) - np.asarray(expected)).max() / scale)


def architecture(config):
    """The policy of a golden file's configuration."""
    return Architecture(
        observation_size=config["observation_size"],
        action_size=config["action_size"],
        discrete=config["discrete"],
        num_context_params=0 if config["maml"] else config["num_context_params"],
        hidden_sizes=tuple(config["hidden_sizes"]),
        nonlinearity=config["nonlinearity"],
        nm_gate=config["nm_gate"] if config["neuromodulation"] else None,
        nm_size=config["nm_size"],
    )


def episodes(golden, config, part):
    """The `Episodes` of one part, "train" or "valid", with all arrays in float64."""

    def stacked(name):
        return np.stack([golden[f"task{k}/{part}/{name}"] for k in range(config["num_tasks"])])

    actions = stacked("actions")
    if config["discrete"]:
        actions = actions.astype(np.int64)
    return Episodes(stacked("observations"), actions, stacked("rewards"), stacked("mask"))


def figures(policy, params, before, after, options, outer, vector, device):
    """Every figure of a golden file, computed by the project's own code."""
    result = {}

    def there(array):
        return torch.from_numpy(array).to(device)

    observations, rewards, mask = (there(array) for array in (before.observations, before.rewards, before.mask))
    design = baseline.features(observations, mask)
    coefficients, _ = baseline.fit(design, returns.discounted_returns(rewards, options.gamma) * mask)
    theta, vector = flatten(params).to(device), vector.to(device)
    chunk = Chunk(policy, theta, (before, after), options, products=2, dtype=torch.float64, device=device)
    term = chunk.terms[0]
    (*_, adapted), inner_losses = inner_loop.adapt(policy, unflatten(policy, theta), term.before, term.update)
    everything = there(after.observations).flatten(1, 2)
    with torch.no_grad():
        distribution = policy(adapted.params, adapted.context, everything)
        # The golden files hold zeros where masked.
        outputs = distribution[0].unflatten(1, after.mask.shape[1:]) * there(after.mask)[..., None]
    for k, values in enumerate(baseline.values(design, coefficients)):
        task = f"task{k}"
        result[f"{task}/baseline_train"] = values
        result[f"{task}/advantages_train"] = term.before[0].advantages[k].reshape(values.shape)
        result[f"{task}/advantages_valid"] = term.batch.advantages[k].reshape(values.shape)
        result[f"{task}/inner_loss"] = inner_losses[k]
        if adapted.context is not None:
            result[f"{task}/adapted/context"] = adapted.context[k].detach()
        else:
            for name, value in adapted.params.items():
                result[f"{task}/adapted/{name}"] = value[k].detach()
        result[f"{task}/{'adapted_logits' if policy.head.discrete else 'adapted_mean'}"] = outputs[k]

    num_tasks = before.mask.shape[0]
    result["surrogate_loss"] = chunk.loss / num_tasks
    result["surrogate_gradient"] = chunk.gradient / num_tasks
    product = chunk.kl_hessian_product(vector)
    result["kl_hessian_vector_product"] = product / num_tasks + outer.cg_damping * vector

    return result | step_figures(policy, params, before, after, options, outer, device)


def step_figures(policy, params, before, after, options, outer, device):
    """The figures of one whole TRPO step."""
    learner = MetaLearner(policy, options, trpo.TRPO(outer), dtype=torch.float64, device=device)
    stepped, metrics = learner.step(params, before, after)
    return {
        "step_improve": -metrics["trpo/improvement"],
        "step_kl": metrics["trpo/kl"],
        "step_step_size": metrics["trpo/step_size"],
    } | {f"after_step/{name}": value for name, value in stepped.items()}


def literal_step_figures(policy, params, before, after, options, outer):
    """The same from the reference, whose products differentiate the divergence twice."""
    stepped, figures = reference.step(policy, params, (before, after), options, outer)
    return {f"step_{name}": value for name, value in figures.items()} | {
        f"after_step/{name}": value for name, value in stepped.items()
    }


def replay(path):
    """Recompute the outer step of a flight record, and tell where numbers stop being finite; returns the exit status.

    Args:
        path: a flight-<iteration>.npz of a run's log folder.
    """
    arrays, description = load(path, "description")
    try:
        sizes = description["architecture"] | {"hidden_sizes": tuple(description["architecture"]["hidden_sizes"])}
        policy = make_policy(Architecture(**sizes))
        row = OUTER_STEPS[description["outer_step"]]
        options, outer_step = Options(**description["objective"]), row.make(row.options(**description["outer"]))
        params, outer_state = (
            {name.removeprefix(prefix): torch.from_numpy(value)
             for name, value in arrays.items() if name.startswith(prefix)}
            for prefix in ("param/", "outer_state/")
        )  # fmt: skip
        params = {name: params[name] for name in policy.shapes}
        updates = sum(name.endswith("/mask") for name in arrays) - 1
        seen = [
            Episodes(*(arrays[f"{number}/{name}"] for name in ("observations", "actions", "rewards", "mask")))
            for number in range(max(updates, 1) + 1)
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a flight record: it lacks or misnames {error}") from None
    print(f"{path}: seed, iteration, phase, first task: {description['stream']}")
    for name, value in params.items():
        if not torch.isfinite(value).all():
            print(f"  parameter {name} is not finite")
    for task in range(seen[0].mask.shape[0]):
        try:
            chunk = Chunk(policy, flatten(params), [episodes.tasks(task, task + 1) for episodes in seen], options)
            curvature = chunk.kl_hessian_product(chunk.gradient)
        except FloatingPointError as error:
            print(f"  task {task}: {error}")
            continue
        print(
            f"  task {task}: inner loss {float(chunk.inner_losses):g}, surrogate {float(chunk.loss):g}, "
            f"gradient {float(chunk.gradient.norm()):g}, curvature product {float(curvature.norm()):g}"
        )
    learner = MetaLearner(policy, options, outer_step)
    learner.state = outer_state
    _, metrics = learner.step(params, *seen)
    print(f"  the step: {metrics}")
    return 0


def parse(command_line=None):
    """The command line's options."""
    parser = Parser(prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="golden files")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the outer step is computed")
    parser.add_argument("--replay", metavar="FILE", help="repeat the outer step of a flight record instead")
    options = parser.parse_args(command_line)
    if bool(options.files) == bool(options.replay):
        raise UserError("expected golden files, or --replay and a flight record")
    return options


if __name__ == "__main__":
    try:
        options = parse()
        sys.exit(replay(options.replay) if options.replay else main(options.files, devices.chosen(options.device)))
    except UserError as error:
        print(f"conformance: {error}", file=sys.stderr)
        sys.exit(2)

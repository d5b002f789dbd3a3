"""The command line of main.py: every option is declared, documented and checked once, in `Config`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, no_type_check

from rl import machine, streams
from rl.algorithm.inner_objective import INNER_OBJECTIVES
from rl.algorithm.outer_steps import OUTER_STEPS, of_others
from rl.errors import UserError
from rl.files import is_of_run, read_json
from rl.policies.elementwise import GATES, NONLINEARITIES

DEVICES = ("auto", "cpu", "cuda")
LARGEST_WHOLE, LARGEST_FLOAT = 2**31 - 1, (2 - 2.0**-23) * 2.0**127  # of options without narrower bounds: of float32


def option(
    default: Any,
    help: str,
    choices: Collection[str] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    flag: str | None = None,
    neutral: bool = False,
    resumable: bool | None = None,
    ungrouped: bool | None = None,
) -> Any:
    """A field of `Config` that is an option too.

    Args:
        default: its default; its type is the option's type.
        help: what it does, for people.
        choices: the values allowed; of a table, its names, those included that are added to it later.
        at_least, at_most, above, below: the range allowed, within what can be computed with at all.
        flag: its name on the command line where that is not the field's name with dashes.
        neutral: whether it says how and where a run is computed and what is kept of it, but changes no result.
        resumable: whether it may change when a run is resumed; default: where it is neutral.
        ungrouped: whether it never tells groups of runs apart; default: where it is neutral.
    """
    if type(default) is int and at_most is None:
        at_most = LARGEST_WHOLE
    metadata = {
        "help": help, "choices": choices, "at_least": at_least, "at_most": at_most, "above": above, "below": below,
        "flag": flag, "neutral": neutral,
        "resumable": neutral if resumable is None else resumable,
        "ungrouped": neutral if ungrouped is None else ungrouped,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def default_workers() -> int:
    """One worker for each core: the learner waits while they sample. Processes of torchrun share a machine's cores."""
    try:
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    except ValueError:
        local_size = 1  # programs that have ranks refuse it: `rl.ranks.Ranks.join`
    return max(1, machine.cores() // max(1, local_size))


@no_type_check  # at run time: `check_option` does that, and names the option
@dataclass(frozen=True)
class Config:
    """Every option of a run. Immutable, and complete: with the same version of the code it is the run."""

    env_name: str = option("2DNavigation-v0", "environment: a built-in id, or package.module:Id for one of your own")
    # Runs are grouped by what the file says, not by its path.
    env_config_path: str = option("", "the environment's own configuration file (CT-graph: JSON)", ungrouped=True)
    horizon: int = option(0, "steps of a Meta-World episode, at most 500; 0: 200, as in the paper", at_least=0)
    gamma: float = option(0.95, "discount factor", at_least=0.0, at_most=1)
    tau: float = option(1.0, "λ of generalised advantage estimation (named tau as published)", at_least=0.0, at_most=1)
    first_order: bool = option(False, "ignore second derivatives of the inner update, in the outer gradient too")
    num_context_params: int = option(2, "C, number of context parameters (ignored with --maml)", at_least=1)
    neuromodulation: bool = option(False, "gate every hidden layer by a neuromodulatory network")
    nm_size: int = option(10, "M, modulators of a layer (with --neuromodulation)", at_least=1)
    nm_gate: str = option(
        "hard",
        "gate of the modulated layers: sign (hard; its modulators never learn), tanh (soft), or sign that learns by "
        "straight-through gradients (ste)",
        choices=GATES,
    )
    nm_gate_bias: float = option(
        0.0,
        "initial bias of every gate; 0 as published. Soft gates start open at 1 to 3; of ste keep it within ±1, beyond "
        "which no gradient passes",
    )
    nm_without_context: bool = option(False, "keep φ from the gates: the layers alone read it")
    maml: bool = option(False, "adapt all weights (MAML) instead of context parameters (CAVIA)")
    hidden_size: int = option(100, "H, units of each hidden layer", at_least=1)
    num_layers: int = option(2, "number of hidden layers", at_least=1, at_most=1000)
    match_params: bool = option(
        False, "widen the layers of a plain policy to as many parameters as with --neuromodulation and --nm-size"
    )
    nonlinearity: str = option("relu", "nonlinearity of the hidden layers", choices=NONLINEARITIES)
    test_freq: int = option(
        10, "iterations between evaluations on the test tasks; the last policy is always evaluated", at_least=1,
        resumable=True, ungrouped=True,
    )  # fmt: skip
    num_test_steps: int = option(5, "inner updates in an evaluation", at_least=1, at_most=streams.MAX_UPDATES)
    num_test_tasks: int = option(
        0, "test tasks of an evaluation; 0, as published: as many as --meta-batch-size", at_least=0
    )
    test_batch_size: int = option(
        40, "episodes of a test task before and after each update of an evaluation", at_least=1
    )
    halve_test_lr: bool = option(False, "halve the inner learning rate after the first update of an evaluation")
    fast_batch_size: int = option(20, "E, episodes of a task before and after each inner update", at_least=1)
    fast_lr: float = option(1.0, "learning rate of the inner update", above=0.0)
    inner_objective: str = option(
        "score",
        "what the inner update descends: REINFORCE as published (score), or likelihood ratios, whose second derivative "
        "credits what is sampled (ratio; ProMP)",
        choices=INNER_OBJECTIVES,
    )
    num_updates: int = option(
        1, "inner updates while training, each on new episodes; 1 as published", at_least=1, at_most=streams.MAX_UPDATES
    )
    pre_update_return: float = option(
        0.0, "weight of the pre-update episodes' own return in the outer objective; 0 as published", at_least=0.0
    )
    exploration_credit: float = option(
        0.0,
        "weight that credits pre-update actions with the task's return after the update (E-MAML); 0 as published",
        at_least=0.0,
    )
    entropy_bonus: float = option(
        0.0, "weight of the pre-update policy's entropy in the outer objective; 0 as published", at_least=0.0
    )
    explore: float = option(
        0.0,
        "share of a task's pre-update training episodes that act at random among the actions that do not end them; 0 "
        "as published",
        at_least=0.0,
        at_most=1,
    )
    num_batches: int = option(500, "number of meta-training iterations", at_least=1, resumable=True)
    meta_batch_size: int = option(20, "K, tasks of an iteration", at_least=1)
    outer_step: str = option(
        "trpo",
        "the outer step: trust region, as published (trpo), or several clipped gradient steps with Adam (ppo; with "
        "--inner-objective ratio it is ProMP)",
        choices=OUTER_STEPS,
    )
    max_kl: float = option(1e-2, "trust region: bound on the mean KL divergence of an outer step", above=0.0)
    pre_update_kl: float = option(
        1.0,
        "weight of the pre-update policy's KL divergence in that bound, where the outer objective credits how it "
        "explores",
        at_least=0.0,
    )
    cg_iters: int = option(10, "conjugate-gradient iterations of an outer step", at_least=1)
    cg_damping: float = option(1e-5, "damping added to the curvature", at_least=0.0)
    ls_max_steps: int = option(15, "the most steps that the line search tries", at_least=1)
    ls_backtrack_ratio: float = option(0.8, "factor from one step of the line search to the next", above=0.0, below=1)
    fvp_subsample: float = option(
        1.0, "fraction of each task's steps used in curvature products; 1 is exact", above=0.0, at_most=1
    )
    num_ppo_steps: int = option(5, "gradient steps of an outer step (ppo)", at_least=1)
    learning_rate: float = option(1e-3, "learning rate of an outer step (ppo)", above=0.0)
    clip_eps: float = option(0.3, "ratios are clipped this far from 1 (ppo); 0: not at all", at_least=0.0, below=1)
    inner_kl_penalty: float = option(
        5e-4, "weight of the pre-update policy's KL divergence from the one that sampled (ppo)", at_least=0.0
    )
    learner_memory: float = option(
        0.0,
        "gigabytes that the outer step may keep for its products, the rest is computed anew each time; changes speed "
        "only. 0: half of the device's memory",
        at_least=0.0,
        neutral=True,
    )
    learner_threads: int = option(
        0, "chunks of tasks that the outer step computes at once; changes speed only. 0: one for each core", at_least=0,
        neutral=True,
    )  # fmt: skip
    num_workers: int = option(
        default_workers(),
        "sampling processes, 0: the program's own; changes speed, never results",
        at_least=0,
        neutral=True,
    )
    worker_timeout: float = option(
        600.0,
        "seconds without a result, for each group of tasks, after which a worker counts as dead",
        above=0.0,
        neutral=True,
    )
    tasks_per_group: int = option(
        2, "tasks that the policy acts on at once; changes speed, and results in the last digits", at_least=1
    )
    tasks_per_block: int = option(
        0,
        "tasks whose gradients and products are added up first; a multiple of --tasks-per-group. Processes of torchrun "
        "share out whole blocks; changes speed, and results in the last digits. 0: as many as the work is worth",
        at_least=0,
    )
    seed: int = option(42, "seed of everything random", at_least=0, at_most=streams.MAX_SEED, ungrouped=True)
    init: str = option("", "saved policy, a state dict, that a new run begins with instead of a random one")
    make_deterministic: bool = option(
        False, "accepted as published; runs are deterministic without it", flag="--make_deterministic", neutral=True
    )
    expname: str = option("", "name appended to the run's folder", neutral=True, resumable=False)
    device: str = option("auto", "device of the outer step; sampling stays on the CPU", choices=DEVICES, neutral=True)
    tf32: bool = option(
        False,
        "let the GPU round the factors of its matrix products to TensorFloat-32: faster with wide policies; a step "
        "differs by some 3 percent",
    )
    quiet: bool = option(
        False, "one plain line an iteration on a terminal, too, instead of a progress bar", neutral=True
    )
    wandb: str = option("", "project of Weights & Biases to log to as well; needs the package wandb", neutral=True)
    save_freq: int = option(
        1, "iterations between saved policies (the last one is always saved)", at_least=1, neutral=True
    )
    logdir: str = option("logs", "folder for logs", neutral=True)
    savedir: str = option("saves", "folder for policies", neutral=True)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_option(field, getattr(self, field.name))
        if is_of_run(name := Path(self.env_config_path).name):
            raise UserError(f"--env-config-path: expected a file of another name than {name}, the run's own")
        if self.tasks_per_block % self.tasks_per_group:
            raise UserError(
                f"--tasks-per-block: expected a multiple of --tasks-per-group ({self.tasks_per_group}), got "
                f"{self.tasks_per_block}"
            )
        foreign = of_others(self.outer_step)
        for field in dataclasses.fields(self):
            if field.name in foreign and getattr(self, field.name) != field.default:
                raise UserError(
                    f"{flag_of(field)}: is of --outer-step {foreign[field.name]}; expected no such option with "
                    f"--outer-step {self.outer_step}"
                )
        if self.match_params and self.neuromodulation:
            raise UserError("--match-params: widens plain policies; expected a command without --neuromodulation")
        if self.explore and self.explore * self.fast_batch_size < 0.5:
            raise UserError(
                f"--explore: {self.explore:g} of {self.fast_batch_size} episodes (--fast-batch-size) is none; expected "
                "a larger share"
            )
        if self.explore and self.inner_objective != "score":
            raise UserError(
                f"--explore: expected --inner-objective score, got {self.inner_objective}: it needs the probability of "
                "what was sampled"
            )
        if any(character in self.expname for character in "/\\\0"):
            raise UserError(f"--expname: expected a name without slashes, got {self.expname!r}")

    @property
    def test_tasks(self) -> int:
        """How many tasks an evaluation has."""
        return self.num_test_tasks or self.meta_batch_size

    @property
    def test_tasks_option(self) -> str:
        """The option that says so."""
        return "--num-test-tasks" if self.num_test_tasks else "--meta-batch-size"

    @property
    def method(self) -> str:
        """The folder name of the method: cavia, nm_cavia, maml or nm_maml."""
        return ("nm_" if self.neuromodulation else "") + ("maml" if self.maml else "cavia")


def _names(fact: str) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(Config) if field.metadata[fact])


# Options that change no result; that may change when a run is resumed; that tell no groups of runs apart.
NEUTRAL, RESUMABLE, UNGROUPED = _names("neutral"), _names("resumable"), _names("ungrouped")


def flag_of(field: dataclasses.Field) -> str:
    """The name of a field on the command line."""
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


def check_option(field: dataclasses.Field, value: Any, name: str | None = None) -> None:
    """Hold a value against its field's type and range.

    Args:
        field: of `Config`.
        value: what was given.
        name: the option that gave it; default: the field's own.

    Raises:
        UserError: naming the option, the value and what was expected.
    """
    rules, name, got = field.metadata, name or flag_of(field), f"got {shortened(value)}"
    kind: Any = field.type
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise UserError(f"{name}: expected {kind.__name__}, {got}")
    if rules["choices"] is not None and value not in rules["choices"]:
        raise UserError(f"{name}: expected one of {', '.join(rules['choices'])}, {got}")
    if kind is float and not abs(value) <= LARGEST_FLOAT:
        raise UserError(f"{name}: expected a finite number, in 32 bits too, {got}")
    if rules["at_least"] is not None and value < rules["at_least"]:
        raise UserError(f"{name}: expected at least {rules['at_least']}, {got}")
    if rules["at_most"] is not None and value > rules["at_most"]:
        raise UserError(f"{name}: expected at most {rules['at_most']}, {got}")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{name}: expected more than {rules['above']}, {got}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UserError(f"{name}: expected less than {rules['below']}, {got}")


def shortened(value: Any) -> str:
    """A value for messages, whose end is cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def whole_number(text: str, least: int = 0) -> int:
    """A whole number from what was typed, for options that are not of a run.

    Raises:
        UserError: it is none, or one that nothing here can be as large as.
    """
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_WHOLE)) else -1
    if not least <= number <= LARGEST_WHOLE:
        raise UserError(f"expected a whole number from {least} to {LARGEST_WHOLE}, got {shortened(text)}")
    return number


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """One line and exit status 2."""
        raise UserError(f"{message} (--help lists all options)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """The end of --help: what it printed is written while an error can still be reported."""
        sys.stdout.flush()
        super().exit(status, message)


def make_parser() -> Parser:
    """The command line of main.py, made from the fields of `Config`. Parsed, it holds those that were named alone."""
    result = Parser(
        prog="main.py",
        description="Meta-train a policy with (neuromodulated) CAVIA or MAML.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for field in dataclasses.fields(Config):
        kind: Any = field.type
        help = field.metadata["help"]
        if kind is bool:
            result.add_argument(flag_of(field), dest=field.name, action="store_true", help=help)
        else:
            result.add_argument(
                flag_of(field),
                dest=field.name,
                type=kind,
                metavar="|".join(field.metadata["choices"] or ()) or kind.__name__.upper(),
                help=help if field.default == "" else f"{help} (default: {field.default})".replace("%", "%%"),
            )
    result.add_argument(
        "--resume",
        metavar="RUN|auto",
        help="go on with a run: its log folder, or auto for the newest one with otherwise the same options",
    )
    return result


def parse_options(arguments: Sequence[str] | None = None) -> Config:
    """Parse a command line (default: the process's own) into a `Config`.

    Raises:
        UserError: an unknown option or an impossible value.
    """
    given, _ = parse_given(arguments)
    return Config(**given)


def parse_given(arguments: Sequence[str] | None = None) -> tuple[dict[str, Any], str | None]:
    """Parse a command line.

    Returns:
        (the options that it names, a dict; the value of --resume or None)
    """
    given = vars(make_parser().parse_args(arguments))
    return given, given.pop("resume", None)


def without_effect(given: Collection[str], config: Config, gpu: bool = False) -> Iterator[str]:
    """What a command line gives in vain: a line each, naming the options.

    Args:
        given: the names of the options on it.
        config: the `Config` that it makes.
        gpu: whether there is a GPU for `--device auto`.
    """
    fields = [field for field in dataclasses.fields(Config) if field.name in given]
    gates = [flag_of(field) for field in fields if field.name.startswith("nm_")]
    if config.match_params and "nm_size" in given:
        gates.remove("--nm-size")
    if gates and not config.neuromodulation:
        yield f"{', '.join(gates)}: no effect without --neuromodulation"
    if config.neuromodulation and config.nm_gate == "ste" and abs(config.nm_gate_bias) > 1:
        yield (
            f"--nm-gate-bias {config.nm_gate_bias:g}: beyond ±1 ste passes no gradient, so such gates stay; "
            "expected a bias within ±1"
        )
    foreign = of_others(config.outer_step)
    if others := [flag_of(field) for field in fields if field.name in foreign]:  # at their defaults: else refused
        yield f"{', '.join(others)}: no effect with --outer-step {config.outer_step}"
    on_cpu = config.device == "cpu" or (config.device == "auto" and not gpu)
    for name, is_vain, why in (
        ("num_context_params", config.maml, "with --maml, which adapts all weights"),
        ("nm_without_context", config.maml and config.neuromodulation, "with --maml, which has no context"),
        ("exploration_credit", config.meta_batch_size == 1,
         "with --meta-batch-size 1, over whose tasks returns are standardised"),
        ("pre_update_kl", not (config.pre_update_return or config.exploration_credit or config.entropy_bonus),
         "without --pre-update-return, --exploration-credit or --entropy-bonus"),
        ("halve_test_lr", config.num_test_steps == 1, "with --num-test-steps 1: the first update has the whole rate"),
        ("worker_timeout", config.num_workers == 0, "with --num-workers 0, which is no worker"),
        ("tf32", on_cpu, "on the CPU"),
    ):  # fmt: skip
        if name in given and is_vain:
            yield f"{flag_of(Config.__dataclass_fields__[name])}: no effect {why}"


# What an evaluation cannot do without; other options missing from an older file take their defaults.
REQUIRED = (
    "env_name", "gamma", "tau", "num_context_params", "neuromodulation", "nm_size", "maml", "hidden_size", "num_layers",
    "nonlinearity", "fast_batch_size", "fast_lr",
)  # fmt: skip
SPLITS = ("train", "test")  # of an environment's tasks
# What a run writes beside its options.
DESCRIPTION = (
    "input_size", "output_size", "init_sha256", "run_seed", "versions", "git_commit", "processor", "gpu", "continued",
)  # fmt: skip


def load_config(path: Path) -> tuple[Config, dict[str, Any]]:
    """Read a run's config.json.

    Returns:
        (`Config`, the file's description of the run: those of `DESCRIPTION` that it has; always "run_seed", the seed
        of the training run, which in an evaluation's file may be another than the `Config`'s; and
        "older_test_batch_size" where the file is of a version that took --test-batch-size for the number of tasks)

    Raises:
        UserError: keys missing or unknown, or impossible values.
    """
    content = read_json(path)
    description = {name: content.pop(name) for name in DESCRIPTION if name in content}
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        raise UserError(f"{path}: lacks the keys {', '.join(missing)}")
    fields = {field.name for field in dataclasses.fields(Config)}
    unknown = sorted(set(content) - fields)
    if unknown:
        raise UserError(f"{path}: unknown keys {', '.join(unknown)}")
    if "test_batch_size" in content and "num_test_tasks" not in content:
        # Versions before this option took --test-batch-size for the number of tasks.
        content |= {"num_test_tasks": content["test_batch_size"], "test_batch_size": content["fast_batch_size"]}
        description["older_test_batch_size"] = True
    try:
        config = Config(**content)
        check_option(Config.__dataclass_fields__["seed"], description.setdefault("run_seed", config.seed), "run_seed")
        return config, description
    except UserError as error:
        raise UserError(f"{path}: {error}") from None

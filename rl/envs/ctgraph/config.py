"""The configuration file of a CT-graph: three dialects of one JSON, read into one frozen dataclass.

A configuration that passes here can be built and run; whatever breaks a rule is a `UserError` of one line that names
the file, the key and the rule.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.errors import UserError

Rule = tuple[Callable[[Any], bool], str]  # whether a value keeps it, and the rule in words

MAX_LEAVES = 2**16
MAX_IMAGES = 2**12
MAX_HORIZON = 10_000  # steps
MAX_REWARD = 1e6
MAX_FILE_SIZE = 2**20  # bytes
# With delays an episode has no longest length; this is the chance that the horizon cuts one that never errs.
TRUNCATION_PROBABILITY = 1e-6

REWARD_DISTRIBUTIONS = ("needle_in_haystack", "linear")


@dataclass(frozen=True)
class CTGraphConfig:
    """A CT-graph. Observation subsets are (first, last) image numbers, both included.

    Attributes:
        depth: d, decisions on the way to a leaf.
        branching: b, choices at a decision.
        delay_probability: p, chance that the right action in a wait state leads back to it.
        high_reward: reward at the goal leaf.
        crash_reward: reward of a wrong kind of action.
        reward_std: s; the reward r at a leaf becomes r (1 + s ε), ε ~ N(0, 1).
        reward_distribution: "needle_in_haystack" or "linear".
        mdp_waits, mdp_decisions: each wait (decision) state shows an image of its own; otherwise a random one of its
            subset. Leaves show their own image if either is true.
        wait_images, decision_images, leaf_images: the subsets; images 0 and 1 belong to home and crash.
        one_dimensional: one-hot vectors rather than 12×12 pictures.
        num_images: size of the image set.
        image_seed: seed of the pictures.
        noise: n; every read of an image adds integers uniform on 0…n to its pixels.
        rotation: every read rotates a picture by an integer number of degrees uniform on 0…rotation−1.
    """

    depth: int
    branching: int
    delay_probability: float
    high_reward: float
    crash_reward: float
    reward_std: float
    reward_distribution: str
    mdp_waits: bool
    mdp_decisions: bool
    wait_images: tuple[int, int]
    decision_images: tuple[int, int]
    leaf_images: tuple[int, int]
    one_dimensional: bool
    num_images: int
    image_seed: int
    noise: int
    rotation: int

    @property
    def num_leaves(self) -> int:
        """bᵈ."""
        return self.branching**self.depth

    @property
    def num_waits(self) -> int:
        """Wait states: Σ bⁱ over i = 0…d."""
        return (self.branching ** (self.depth + 1) - 1) // (self.branching - 1)

    @property
    def num_decisions(self) -> int:
        """Decision states: Σ bⁱ over i = 0…d−1."""
        return (self.num_leaves - 1) // (self.branching - 1)

    @property
    def horizon(self) -> int:
        """2d + 3 steps without delays; with them, room for all but 1e-6 of the faultless episodes."""
        return 2 * self.depth + 3 + _delay_quantile(self.depth + 1, self.delay_probability)


def _delay_quantile(waits: int, probability: float) -> int:
    """The smallest m with P(D > m) < 1e-6, D the delays met in `waits` wait states; stops above `MAX_HORIZON`.

    D is negative binomial: P(D = k) = C(k + w − 1, k) pᵏ (1 − p)ʷ.
    """
    if probability == 0.0:
        return 0
    log_term = waits * math.log1p(-probability)
    below = math.exp(log_term)
    delays = 0
    while 1.0 - below >= TRUNCATION_PROBABILITY and delays <= MAX_HORIZON:
        delays += 1
        log_term += math.log(probability) + math.log((delays + waits - 1) / delays)
        below += math.exp(log_term)
    return delays


def _integer(low: int, high: int) -> Rule:
    return lambda value: type(value) is int and low <= value <= high, f"an integer from {low} to {high}"


def _number(low: float, high: float) -> Rule:
    return lambda value: type(value) in (int, float) and low <= value <= high, f"a number from {low:g} to {high:g}"


def _is_pair(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(type(number) is int for number in value)


_BOOLEAN = (lambda value: type(value) is bool, "true or false")
_DISTRIBUTION = (lambda value: value in REWARD_DISTRIBUTIONS, f"one of {', '.join(REWARD_DISTRIBUTIONS)}")
_IMAGES = _is_pair, "a list of two image numbers [first, last]"
_REWARD, _EPISODES, _SEED = _number(-MAX_REWARD, MAX_REWARD), _integer(-(2**31), 2**31 - 1), _integer(0, 2**32 - 1)

# Field -> (section, its names by dialect, (what holds of a value, in words)). The first name is that of the 2021 code,
# the last that of gym-CTgraph 1.0.
_FIELDS = {
    "depth": ("graph_shape", ("depth", "d"), _integer(1, MAX_LEAVES.bit_length() - 1)),
    "branching": ("graph_shape", ("branching_factor", "b"), _integer(2, MAX_LEAVES)),
    "delay_probability": ("graph_shape", ("delay_prob", "wait_prob", "p"), _number(0.0, 1.0)),
    "high_reward": ("reward", ("high_reward_value", "high_r"), _REWARD),
    "crash_reward": ("reward", ("crash_reward_value", "fail_r"), _REWARD),
    "stochastic_sampling": ("reward", ("stochastic_sampling", "stochastic_d"), _BOOLEAN),
    "reward_std": ("reward", ("reward_std", "std_r"), _number(0.0, MAX_REWARD)),
    "min_static_episodes": ("reward", ("min_static_reward_episodes",), _EPISODES),
    "max_static_episodes": ("reward", ("max_static_reward_episodes",), _EPISODES),
    "reward_distribution": ("reward", ("reward_distribution",), _DISTRIBUTION),
    "mdp_waits": ("observations", ("MDP_delays", "MDP_wait_s", "MDP_W"), _BOOLEAN),
    "mdp_decisions": ("observations", ("MDP_decisions", "MDP_decision_s", "MDP_D"), _BOOLEAN),
    "wait_images": ("observations", ("delay_states", "wait_states", "W_IDs"), _IMAGES),
    "decision_images": ("observations", ("decision_points", "decision_states", "D_IDs"), _IMAGES),
    "leaf_images": ("observations", ("graph_ends",), _IMAGES),
    "image_seed": ("image_dataset", ("seed",), _SEED),
    "one_dimensional": ("image_dataset", ("1D",), _BOOLEAN),
    "num_images": ("image_dataset", ("nr_of_images",), _integer(3, MAX_IMAGES)),
    "noise": ("image_dataset", ("noise_on_images_on_read", "noise_on_read"), _integer(0, 254)),
    "rotation": ("image_dataset", ("small_rotation_on_read", "rotation_on_read"), _integer(0, 360)),
    "general_seed": (None, ("general_seed",), _SEED),
}
_SECTIONS = ("graph_shape", "reward", "observations", "image_dataset")


def read(path: str | Path) -> CTGraphConfig:
    """The `CTGraphConfig` in a JSON file.

    Raises:
        UserError: the file cannot be read, is no JSON, or breaks a rule.
    """
    return parse(_read_json(path), path)


def parse(document: Any, source: str | Path) -> CTGraphConfig:
    """The `CTGraphConfig` in parsed JSON; `source` names it in messages.

    Two settings follow the 2021 code of the published experiments rather than gym-CTgraph 1.0: `stochastic_sampling:
    false` switches reward noise off (files in the dialect of 1.0 leave the key out: noise is on), and the goal never
    moves by itself, so `min_static_reward_episodes`, `max_static_reward_episodes` and `general_seed` are checked and
    then ignored: the task alone sets the goal, and random numbers come from the run's own streams.

    Raises:
        UserError: a rule is broken.
    """
    names, values = _fields_of(document, source)

    def require(field: str, holds: bool, rule: str) -> None:
        section = _FIELDS[field][0]
        if not holds:
            raise UserError(f"{source}: {f'{section}.' if section else ''}{names[field]} {rule}")

    for field, (section, spellings, (holds, words)) in _FIELDS.items():
        if field not in values:
            # The 2021 code needs the key; 1.0 has none.
            if field == "stochastic_sampling" and names.get("reward_std") == "std_r":
                values[field] = True
                continue
            where = f" in section {section!r}" if section else ""
            raise UserError(f"{source}: key {' or '.join(spellings)} is missing{where}")
        require(field, holds(values[field]), f"must be {words}, got {_show(values[field])}")
    for field in ("delay_probability", "high_reward", "crash_reward", "reward_std"):
        values[field] = float(values[field])
    for field in ("wait_images", "decision_images", "leaf_images"):
        values[field] = tuple(values[field])
    if not values["stochastic_sampling"]:
        values["reward_std"] = 0.0
    config = CTGraphConfig(**{field.name: values[field.name] for field in dataclasses.fields(CTGraphConfig)})

    leaves = f"{config.branching}**{config.depth}"
    few = config.branching**config.depth <= MAX_LEAVES
    require("branching", few, f"branching ** depth must be at most {MAX_LEAVES} leaves, got {leaves}")
    require("delay_probability", config.delay_probability < 1.0, "must lie in [0, 1), got 1")
    large = abs(config.high_reward) * MAX_REWARD >= 1.0
    require("high_reward", large, f"must be at least {1 / MAX_REWARD:g} in size, got {config.high_reward!r}")
    # Only pictures can be turned, and they are always turned by less than `rotation` degrees.
    turns = config.one_dimensional or config.rotation >= 1
    require("rotation", turns, f"must be an integer from 1 to 360, got {config.rotation}")
    for field, needed in (
        ("wait_images", config.num_waits if config.mdp_waits else 1),
        ("decision_images", config.num_decisions if config.mdp_decisions else 1),
        ("leaf_images", 1),
    ):
        first, last = getattr(config, field)
        got = f"got {_show([first, last])}"
        require(field, first >= 2, f"must not hold images 0 and 1, which belong to home and crash, {got}")
        inside = first <= last < config.num_images
        require(field, inside, f"must be [first, last] with first <= last < {config.num_images} images, {got}")
        found = last - first + 1
        require(field, found >= needed, f"must hold at least {needed} images, one a state, got {found}")
    require("delay_probability", config.horizon <= MAX_HORIZON, f"episodes would take more than {MAX_HORIZON} steps")
    return config


def _fields_of(document: Any, source: str | Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The names under which a document gives its fields, and their values: two dicts by field."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}

    def collect(entries: Any, section: str | None) -> None:
        where = f"section {section!r}" if section else "the file"
        if not isinstance(entries, dict):
            raise UserError(f"{source}: {where} must be a JSON object, got {_show(entries)}")
        known = {
            name: field for field, (home, spellings, _) in _FIELDS.items() if home == section for name in spellings
        }
        expected = [*known] if section else [*_SECTIONS, *known]
        for name, value in entries.items():
            if name not in expected:
                raise UserError(f"{source}: unknown key {_show(name)} in {where}; expected {', '.join(expected)}")
            if name not in known:
                continue
            field = known[name]
            if field in names:
                raise UserError(f"{source}: {where} gives one setting twice, as {names[field]} and {name}")
            names[field], values[field] = name, value

    collect(document, None)
    for section in _SECTIONS:
        if section not in document:
            raise UserError(f"{source}: section {section!r} is missing")
        collect(document[section], section)
    return names, values


def _read_json(path: str | Path) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such configuration file")
    if os.path.getsize(path) > MAX_FILE_SIZE:
        raise UserError(f"{path}: larger than {MAX_FILE_SIZE} bytes, which is no CT-graph configuration")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_pairs_hook=_distinct)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {_show(next(name for name in names if names.count(name) > 1))} is given twice")
    return entries


def _show(value: Any) -> str:
    """A value from the file, short enough for one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."

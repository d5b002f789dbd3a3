"""The configuration file of a CT-graph: three dialects of one JSON, read into one frozen dataclass.

A configuration that passes here can be built and run; whatever breaks a rule is a `UserError` of one line that names
the file, the key and the rule.
"""

import json
import math
import os
from dataclasses import dataclass

from rl.errors import UserError

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
    def num_leaves(self):
        """bᵈ."""
        return self.branching**self.depth

    @property
    def num_waits(self):
        """Wait states: Σ bⁱ over i = 0…d."""
        return (self.branching ** (self.depth + 1) - 1) // (self.branching - 1)

    @property
    def num_decisions(self):
        """Decision states: Σ bⁱ over i = 0…d−1."""
        return (self.num_leaves - 1) // (self.branching - 1)

    @property
    def horizon(self):
        """2d + 3 steps without delays; with them, room for all but 1e-6 of the faultless episodes."""
        return 2 * self.depth + 3 + _delay_quantile(self.depth + 1, self.delay_probability)


def _delay_quantile(waits, probability):
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


# Field -> (section, the names it goes by). The first is that of the 2021 code, the last that of gym-CTgraph 1.0.
_KEYS = {
    "depth": ("graph_shape", ("depth", "d")),
    "branching": ("graph_shape", ("branching_factor", "b")),
    "delay_probability": ("graph_shape", ("delay_prob", "wait_prob", "p")),
    "high_reward": ("reward", ("high_reward_value", "high_r")),
    "crash_reward": ("reward", ("crash_reward_value", "fail_r")),
    "stochastic_sampling": ("reward", ("stochastic_sampling", "stochastic_d")),
    "reward_std": ("reward", ("reward_std", "std_r")),
    "min_static_episodes": ("reward", ("min_static_reward_episodes",)),
    "max_static_episodes": ("reward", ("max_static_reward_episodes",)),
    "reward_distribution": ("reward", ("reward_distribution",)),
    "mdp_waits": ("observations", ("MDP_delays", "MDP_wait_s", "MDP_W")),
    "mdp_decisions": ("observations", ("MDP_decisions", "MDP_decision_s", "MDP_D")),
    "wait_images": ("observations", ("delay_states", "wait_states", "W_IDs")),
    "decision_images": ("observations", ("decision_points", "decision_states", "D_IDs")),
    "leaf_images": ("observations", ("graph_ends",)),
    "image_seed": ("image_dataset", ("seed",)),
    "one_dimensional": ("image_dataset", ("1D",)),
    "num_images": ("image_dataset", ("nr_of_images",)),
    "noise": ("image_dataset", ("noise_on_images_on_read", "noise_on_read")),
    "rotation": ("image_dataset", ("small_rotation_on_read", "rotation_on_read")),
    "general_seed": (None, ("general_seed",)),
}
_SECTIONS = ("graph_shape", "reward", "observations", "image_dataset")


def read(path):
    """The `CTGraphConfig` in a JSON file.

    Raises:
        UserError: the file cannot be read, is no JSON, or breaks a rule.
    """
    return parse(_read_json(path), path)


def parse(document, source):
    """The `CTGraphConfig` in parsed JSON; `source` names it in messages.

    Two settings follow the 2021 code of the published experiments rather than gym-CTgraph 1.0: `stochastic_sampling:
    false` switches reward noise off (files in the dialect of 1.0 leave the key out: noise is on), and the goal never
    moves by itself, so `min_static_reward_episodes`, `max_static_reward_episodes` and `general_seed` are checked and
    then ignored: the task alone sets the goal, and random numbers come from the run's own streams.

    Raises:
        UserError: a rule is broken.
    """
    reader = _Reader(source, document)
    depth = reader.integer("depth", 1, MAX_LEAVES.bit_length() - 1)
    branching = reader.integer("branching", 2, MAX_LEAVES)
    if branching**depth > MAX_LEAVES:
        reader.fail("branching", f"branching ** depth must be at most {MAX_LEAVES} leaves, got {branching}**{depth}")
    delay_probability = reader.number("delay_probability", 0.0, 1.0)
    if delay_probability == 1.0:
        reader.fail("delay_probability", "must lie in [0, 1), got 1")

    high_reward = reader.number("high_reward", -MAX_REWARD, MAX_REWARD)
    if abs(high_reward) * MAX_REWARD < 1.0:
        reader.fail("high_reward", f"must be at least {1 / MAX_REWARD:g} in size, got {high_reward!r}")
    reward_std = reader.number("reward_std", 0.0, MAX_REWARD)
    # The 2021 code needs the key; 1.0 has none.
    if reader.has("stochastic_sampling") or reader.spelling("reward_std") == "reward_std":
        reward_std = reward_std if reader.boolean("stochastic_sampling") else 0.0
    reward_distribution = reader.choice("reward_distribution", REWARD_DISTRIBUTIONS)
    for ignored in ("min_static_episodes", "max_static_episodes"):
        reader.integer(ignored, -(2**31), 2**31 - 1)
    reader.integer("general_seed", 0, 2**32 - 1)

    one_dimensional = reader.boolean("one_dimensional")
    num_images = reader.integer("num_images", 3, MAX_IMAGES)
    config = CTGraphConfig(
        depth=depth,
        branching=branching,
        delay_probability=delay_probability,
        high_reward=high_reward,
        crash_reward=reader.number("crash_reward", -MAX_REWARD, MAX_REWARD),
        reward_std=reward_std,
        reward_distribution=reward_distribution,
        mdp_waits=reader.boolean("mdp_waits"),
        mdp_decisions=reader.boolean("mdp_decisions"),
        wait_images=reader.subset("wait_images", num_images),
        decision_images=reader.subset("decision_images", num_images),
        leaf_images=reader.subset("leaf_images", num_images),
        one_dimensional=one_dimensional,
        num_images=num_images,
        image_seed=reader.integer("image_seed", 0, 2**32 - 1),
        noise=reader.integer("noise", 0, 254),
        # Only pictures can be turned, and they are always turned by less than `rotation` degrees.
        rotation=reader.integer("rotation", 0 if one_dimensional else 1, 360),
    )
    for field, needs_own, needed in (
        ("wait_images", config.mdp_waits, config.num_waits),
        ("decision_images", config.mdp_decisions, config.num_decisions),
    ):
        first, last = getattr(config, field)
        if needs_own and last - first + 1 < needed:
            reader.fail(field, f"must hold at least {needed} images, one a state, got {last - first + 1}")
    if config.horizon > MAX_HORIZON:
        reader.fail("delay_probability", f"episodes would take more than {MAX_HORIZON} steps")
    return config


class _Reader:
    """Typed access to a parsed file by field name; every failure is a `UserError`."""

    def __init__(self, source, document):
        self.source = source
        self.values = {}
        self._collect(document, None)
        for section in _SECTIONS:
            if section not in document:
                raise UserError(f"{source}: section {section!r} is missing")
            self._collect(document[section], section)

    def _collect(self, entries, section):
        where = f"section {section!r}" if section else "the file"
        if not isinstance(entries, dict):
            raise UserError(f"{self.source}: {where} must be a JSON object, got {_show(entries)}")
        fields = {name: field for field, (home, names) in _KEYS.items() if home == section for name in names}
        for name, value in entries.items():
            if section is None and name in _SECTIONS:
                continue
            if name not in fields:
                expected = [*_SECTIONS, *fields] if section is None else list(fields)
                raise UserError(f"{self.source}: unknown key {_show(name)} in {where}; expected {', '.join(expected)}")
            if fields[name] in self.values:
                raise UserError(
                    f"{self.source}: {where} gives one setting twice, as {self.values[fields[name]][0]} and {name}"
                )
            self.values[fields[name]] = (name, value)

    def has(self, field):
        return field in self.values

    def spelling(self, field):
        """The name under which the file gives the field."""
        self.value(field)
        return self.values[field][0]

    def value(self, field):
        if field not in self.values:
            section, names = _KEYS[field]
            where = f" in section {section!r}" if section else ""
            raise UserError(f"{self.source}: key {' or '.join(names)} is missing{where}")
        return self.values[field][1]

    def fail(self, field, rule):
        section = _KEYS[field][0]
        raise UserError(f"{self.source}: {section + '.' if section else ''}{self.spelling(field)} {rule}")

    def integer(self, field, low, high):
        value = self.value(field)
        if type(value) is not int or not low <= value <= high:
            self.fail(field, f"must be an integer from {low} to {high}, got {_show(value)}")
        return value

    def number(self, field, low, high):
        value = self.value(field)
        if type(value) not in (int, float) or not low <= value <= high:
            self.fail(field, f"must be a number from {low:g} to {high:g}, got {_show(value)}")
        return float(value)

    def boolean(self, field):
        value = self.value(field)
        if type(value) is not bool:
            self.fail(field, f"must be true or false, got {_show(value)}")
        return value

    def choice(self, field, allowed):
        value = self.value(field)
        if type(value) is not str or value not in allowed:
            self.fail(field, f"must be one of {', '.join(allowed)}, got {_show(value)}")
        return value

    def subset(self, field, num_images):
        value = self.value(field)
        if type(value) is not list or len(value) != 2 or any(type(number) is not int for number in value):
            self.fail(field, f"must be a list of two image numbers [first, last], got {_show(value)}")
        first, last = value
        if first < 2:
            self.fail(field, f"must not hold images 0 and 1, which belong to home and crash, got {_show(value)}")
        if not first <= last < num_images:
            self.fail(field, f"must be [first, last] with first <= last < {num_images} images, got {_show(value)}")
        return first, last


def _read_json(path):
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


def _distinct(pairs):
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {_show(next(name for name in names if names.count(name) > 1))} is given twice")
    return entries


def _show(value):
    """A value from the file, short enough for one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."

"""Policies and states: what was saved comes back, and nothing else is taken for it."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from rl.algorithm import ppo, trpo
from rl.algorithm.jacobian import flatten
from rl.errors import UserError
from rl.run.checkpoint import STATE, Counters, State, load_policy, load_state, save_policy, save_state
from tests.support.helpers import COMBINATIONS, random_params, small_policy
from tests.torture import damage_states

POLICY = small_policy("normal", "hard")
PARAMS = random_params(POLICY, dtype=torch.float32)
STEP = trpo.TRPO(trpo.Options())


def as_policy(path):
    return load_policy(path, POLICY)


def as_state(path):
    return load_state(path.parent, POLICY, STEP)


LOADS = pytest.mark.parametrize("load", [as_policy, as_state])


@pytest.mark.parametrize("head, layer, adaptation", COMBINATIONS)
def test_a_policy_comes_back_from_its_file(tmp_path, head, layer, adaptation):
    """A plain state dict, whatever kept gradients."""
    policy = small_policy(head, layer, adaptation)
    params = {name: value.requires_grad_() for name, value in random_params(policy, dtype=torch.float32).items()}
    path = tmp_path / "policy-0.pt"
    save_policy(path, params)
    assert [file.name for file in tmp_path.iterdir()] == ["policy-0.pt"]
    content = torch.load(path, weights_only=True)
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in content.values())
    loaded = load_policy(path, policy)
    assert list(loaded) == list(params) and all(torch.equal(loaded[name], params[name]) for name in params)


def test_a_published_state_dict_loads_whatever_its_order_and_type(tmp_path):
    params = random_params(POLICY)
    path = tmp_path / "published.pt"
    torch.save(dict(reversed(params.items())), path)
    loaded = load_policy(path, POLICY)
    assert list(loaded) == list(params) and all(torch.equal(loaded[name], params[name].float()) for name in params)


def test_a_state_comes_back_from_its_file(tmp_path):
    state = State(7, PARAMS, Counters(1, 2, 3, 4, 5, 6), {"seed": 3})
    save_state(tmp_path, state)
    loaded = load_state(tmp_path, POLICY, STEP)
    assert (loaded.iteration, loaded.counters, loaded.options) == (7, state.counters, {"seed": 3})
    assert all(torch.equal(loaded.params[name], value) for name, value in PARAMS.items())


@pytest.mark.parametrize(
    "other, parts",
    [
        (
            ("normal", {"hidden_sizes": (6, 4)}),
            ["layer1.weight: expected 5×5, found 6×5", "layer2.weight: expected 4×5, found 4×6"],
        ),
        (
            ("categorical", {"hidden_sizes": (5,)}),
            ["sigma: expected 2, found nothing", "layer2.weight: expected 4×5, found 2×5", "(and "],
        ),
    ],
)
def test_a_policy_of_another_shape_says_what_was_expected_and_found(tmp_path, other, parts):
    path = tmp_path / "policy.pt"
    save_policy(path, random_params(small_policy(other[0], **other[1]), dtype=torch.float32))
    with pytest.raises(UserError) as caught:
        load_policy(path, small_policy())
    text = str(caught.value)
    assert all(part in text for part in ["policy.pt", *parts]) and "\n" not in text, text


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@LOADS
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_is_refused(tmp_path, load, save):
    trap, path = tmp_path / "trapped", tmp_path / STATE
    save({"sigma": Payload(str(trap))}, path)
    with pytest.raises(UserError, match=STATE) as caught:
        load(path)
    assert not trap.exists() and "\n" not in str(caught.value)


@LOADS
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"no policy\n", b"\x80\x04K\x01.", b"cos\nsystem\n.",
                                     [torch.zeros(1)], {"sigma": 3}, {"facts": 3}, torch.zeros(2), "text"])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(tmp_path, load, content):
    path = tmp_path / STATE
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=STATE) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_state_is_noticed_or_unharmed(tmp_path):
    assert damage_states(tmp_path, np.random.default_rng(0), 40) > 10


FACTS = {"iteration": 1, "counters": vars(Counters()), "options": {}}


@pytest.mark.parametrize(
    "changes",
    [{"iteration": -1}, {"iteration": "1"}, {"iteration": True}, {"counters": {"no_update": 1.5}}, {"counters": 3},
     {"counters": {"unheard_of": 1}}, {"options": 3}],
    ids=str,
)  # fmt: skip
def test_a_state_of_impossible_facts_is_refused(tmp_path, changes):
    torch.save({"facts": json.dumps(FACTS), "params": PARAMS, "outer_state": {}}, tmp_path / STATE)
    assert load_state(tmp_path, POLICY, STEP).iteration == 1
    torch.save({"facts": json.dumps(FACTS | changes), "params": PARAMS, "outer_state": {}}, tmp_path / STATE)
    with pytest.raises(UserError, match=STATE):
        load_state(tmp_path, POLICY, STEP)


@pytest.mark.parametrize(
    "change",
    [
        {"exp_avg": None},
        {"exp_avg": torch.zeros(3)},
        {"unheard_of": torch.zeros(3)},
        {"step": torch.zeros((), dtype=torch.int64)},
        {"step": None, "exp_avg": None, "exp_avg_sq": None},
    ],
    ids=str,
)
def test_a_state_of_another_outer_step_is_refused(tmp_path, change):
    adam = ppo.PPO(ppo.Options())
    outer_state = adam.init(flatten(PARAMS))
    save_state(tmp_path, State(1, PARAMS, outer_state=outer_state))
    assert load_state(tmp_path, POLICY, adam).outer_state.keys() == outer_state.keys()
    changed = {name: value for name, value in (outer_state | change).items() if value is not None}
    save_state(tmp_path, State(1, PARAMS, outer_state=changed))
    with pytest.raises(UserError, match=rf"{STATE}: .*the outer step's state, found"):
        load_state(tmp_path, POLICY, adam)


@pytest.mark.parametrize("name, number", [("fsync", 1), ("replace", 1), ("fsync", 2)])
def test_wherever_saving_a_state_stops_there_is_a_whole_one(tmp_path, monkeypatch, name, number):
    class Stopped(Exception):
        pass

    def stop_at(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise Stopped
        return call(*arguments)

    states = [State(i, random_params(POLICY, i, torch.float32), Counters(no_update=i)) for i in range(2)]
    save_state(tmp_path, states[0])
    calls, call = [], getattr(os, name)
    monkeypatch.setattr(os, name, stop_at)
    with pytest.raises(Stopped):
        save_state(tmp_path, states[1])
    monkeypatch.undo()
    loaded = load_state(tmp_path, POLICY, STEP)
    expected = states[loaded.iteration]
    assert loaded.iteration == ((name, number) == ("fsync", 2)) and loaded.counters == expected.counters
    assert all(torch.equal(loaded.params[name], value) for name, value in expected.params.items())

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.envs.ctgraph import config as ctgraph_config
from rl.errors import UserError
from tests.support.ctgraph_documents import LATER_2021, NOISY, SHIPPED, VERSION_1, document, for_package, make, renamed
from tests.support.fuzz import FUZZ, changed, places


@pytest.mark.parametrize("names", [LATER_2021, VERSION_1])
def test_three_dialects_say_the_same(names):
    parsed = document(**NOISY)
    assert ctgraph_config.parse(renamed(parsed, names), "test") == ctgraph_config.parse(parsed, "test")


@pytest.mark.parametrize(
    "section, key, value, rule",
    [
        ("graph_shape", "depth", 0, "integer from 1 to 16"),
        ("graph_shape", "depth", 17, "integer from 1 to 16"),
        ("graph_shape", "depth", 2.0, "integer from 1 to 16"),
        ("graph_shape", "depth", True, "integer from 1 to 16"),
        ("graph_shape", "branching_factor", 1, "integer from 2"),
        ("graph_shape", "branching_factor", 300, "at most 65536 leaves, got 300"),
        ("graph_shape", "branching_factor", 3, "decision_points|delay_states"),
        ("graph_shape", "delay_prob", 1.0, "must lie in"),
        ("graph_shape", "delay_prob", -0.1, "number from 0 to 1"),
        ("graph_shape", "delay_prob", float("nan"), "number from 0 to 1"),
        ("graph_shape", "delay_prob", "0.5", "number from 0 to 1"),
        ("reward", "high_reward_value", 0, "at least 1e-06 in size"),
        ("reward", "high_reward_value", float("inf"), "number from"),
        ("reward", "high_reward_value", 10**400, "number from"),
        ("reward", "crash_reward_value", None, "number from"),
        ("reward", "stochastic_sampling", 0, "true or false"),
        ("reward", "reward_std", -1, "number from 0"),
        ("reward", "reward_distribution", "uniform", "one of needle_in_haystack, linear"),
        ("reward", "reward_distribution", [], "one of needle_in_haystack, linear"),
        ("reward", "min_static_reward_episodes", 0.5, "integer"),
        ("observations", "MDP_delays", "yes", "true or false"),
        ("observations", "delay_states", [2, 7], "at least 7 images, one a state, got 6"),
        ("observations", "decision_points", [9, 10], "at least 3 images, one a state, got 2"),
        ("observations", "decision_points", [1, 11], "images 0 and 1, which belong to home and crash"),
        ("observations", "graph_ends", [12, 16], "first <= last < 16 images"),
        ("observations", "graph_ends", [13, 12], "first <= last < 16 images"),
        ("observations", "graph_ends", [12], "two image numbers"),
        ("observations", "graph_ends", [12, 14.5], "two image numbers"),
        ("observations", "graph_ends", {"first": 12}, "two image numbers"),
        ("image_dataset", "1D", 1, "true or false"),
        ("image_dataset", "nr_of_images", 15, "graph_ends must be .* < 15 images"),
        ("image_dataset", "nr_of_images", 10**6, "integer from 3 to 4096"),
        ("image_dataset", "seed", -1, "integer from 0"),
        ("image_dataset", "noise_on_images_on_read", 255, "integer from 0 to 254"),
        ("image_dataset", "small_rotation_on_read", 361, "integer from 0 to 360"),
    ],
)
def test_a_broken_rule_is_named(section, key, value, rule):
    with pytest.raises(UserError, match=rule) as caught:
        ctgraph_config.parse(document(**{section: {key: value}}), "some/file.json")
    assert str(caught.value).startswith("some/file.json: ") and "\n" not in str(caught.value)
    if "images" not in key and "|" not in rule:
        assert f"{section}.{key}" in str(caught.value)


def test_pictures_must_be_read_at_some_angle():
    with pytest.raises(UserError, match="small_rotation_on_read must be an integer from 1 to 360, got 0"):
        ctgraph_config.parse(document(image_dataset={"1D": False, "small_rotation_on_read": 0}), "test")


@pytest.mark.parametrize("names", [{}, LATER_2021, VERSION_1])
def test_every_missing_key_is_named(names):
    complete = renamed(document(), names)
    for index, (container, _) in enumerate(places(complete)):
        if isinstance(container, dict):
            broken = renamed(document(), names)
            container, key = list(places(broken))[index]
            del container[key]
            if names is VERSION_1 and key == "stochastic_sampling":
                continue
            with pytest.raises(UserError, match=f"{key}.* is missing"):
                ctgraph_config.parse(broken, "test")


def test_unknown_and_doubled_keys_are_named():
    for section in ("graph_shape", None):
        broken = document()
        (broken[section] if section else broken)["dept"] = 3
        with pytest.raises(UserError, match=r"unknown key 'dept' in .*; expected .*"):
            ctgraph_config.parse(broken, "test")
    broken = document()
    broken["graph_shape"]["d"] = 3
    with pytest.raises(UserError, match="gives one setting twice, as depth and d"):
        ctgraph_config.parse(broken, "test")


@pytest.mark.parametrize(
    "content, rule",
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "not valid JSON"),
        (b'{"reward": {}, "reward": {}}', "key 'reward' is given twice"),
        (b" " * (2**20 + 1), "larger than"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "section 'graph_shape' is missing"),
        (b'{"graph_shape": 3}', "section 'graph_shape' must be a JSON object, got 3"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, rule):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as caught:
        ctgraph_config.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json", "/dev/zero", "a\0b"):
        with pytest.raises(UserError, match="no such configuration file"):
            ctgraph_config.read(path)


@FUZZ
@given(st.sampled_from(SHIPPED).flatmap(lambda name: changed(document(name))))
def test_any_value_anywhere_is_a_configuration_or_a_user_error(parsed):
    try:
        env = make(parsed, 2)
    except UserError as error:
        assert str(error).startswith("test: ") and "\n" not in str(error)
        return
    env.reset(seed=1)
    env.step(np.array([0, 0]))


def test_where_the_2021_code_has_no_reward_noise_there_is_none():
    parsed = document(reward={"stochastic_sampling": False, "reward_std": 0.3})
    assert ctgraph_config.parse(parsed, "test").reward_std == 0.0
    assert ctgraph_config.parse(document(reward={"stochastic_sampling": True, "reward_std": 0.3}), "").reward_std == 0.3
    # The dialect of 1.0 leaves the key out and always applies its standard deviation.
    theirs = for_package(document(reward={"stochastic_sampling": True, "reward_std": 0.3}))
    assert "stochastic_sampling" not in theirs["reward"]
    assert ctgraph_config.parse(theirs, "test").reward_std == 0.3

import dataclasses
import json

import pytest

from rl import machine
from rl.config import (
    NEUTRAL,
    RESUMABLE,
    UNGROUPED,
    Config,
    flag_of,
    load_config,
    parse_given,
    parse_options,
    without_effect,
)
from rl.errors import UserError
from rl.run.resume import choose

# The published options with the defaults of the published code, and the new ones.
DEFAULTS = {
    "--env-name": "2DNavigation-v0", "--env-config-path": "", "--gamma": 0.95, "--tau": 1.0,
    "--first-order": False, "--num-context-params": 2, "--neuromodulation": False, "--nm-size": 10,
    "--nm-gate": "hard", "--maml": False, "--hidden-size": 100, "--num-layers": 2, "--nonlinearity": "relu",
    "--test-freq": 10, "--num-test-steps": 5, "--num-test-tasks": 0, "--test-batch-size": 40, "--halve-test-lr": False,
    "--fast-batch-size": 20, "--fast-lr": 1.0, "--inner-objective": "score", "--wandb": "", "--num-batches": 500,
    "--meta-batch-size": 20, "--max-kl": 1e-2, "--cg-iters": 10, "--cg-damping": 1e-5, "--ls-max-steps": 15,
    "--ls-backtrack-ratio": 0.8, "--learner-threads": 0, "--num-workers": machine.cores(), "--seed": 42,
    "--make_deterministic": False, "--expname": "", "--device": "auto", "--save-freq": 1, "--logdir": "logs",
    "--savedir": "saves",
}  # fmt: skip
OTHERS = {str: "other", int: 3, float: 0.25}
CHOSEN = {"--inner-objective": "ratio", "--nm-gate": "soft", "--nonlinearity": "tanh", "--device": "cpu"}


def field(flag):
    return flag.removeprefix("--").replace("-", "_")


def test_every_option_has_its_default():
    config = parse_options([])
    assert {flag: getattr(config, field(flag)) for flag in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("flag", DEFAULTS)
def test_every_option_can_be_set(flag):
    default = DEFAULTS[flag]
    if isinstance(default, bool):
        value, line = True, [flag]
    else:
        value = CHOSEN.get(flag, OTHERS[type(default)])
        line = [flag, str(value)]
    config = parse_options(line)
    assert value != default
    assert getattr(config, field(flag)) == value
    assert dataclasses.replace(config, **{field(flag): default}) == Config()


def test_every_option_is_explained(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_options(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in DEFAULTS)
    assert all(f.metadata["help"] for f in dataclasses.fields(Config))


def test_only_what_is_on_the_command_line_is_given():
    assert parse_given(["--seed", "42", "--maml"]) == ({"seed": 42, "maml": True}, None)
    assert parse_given(["--resume", "auto"]) == ({}, "auto")


@pytest.mark.parametrize(
    "line, message",
    [
        (["--unknown", "3"], "--unknown"),
        (["--fast-batch", "3"], "--fast-batch"),  # no abbreviations: a typo must not train for a day
        (["stray"], "stray"),
        (["--seed"], "--seed"),
        (["--seed", "4.5"], "--seed"),
        (["--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["--seed", str(2**32)], "--seed: expected at most 4294967295"),
        (["--nonlinearity", "sigmoid"], "--nonlinearity: expected one of relu, tanh, silu, got 'sigmoid'"),
        (["--nm-gate", "firm"], "--nm-gate: expected one of soft, hard, ste"),
        (["--device", "abacus"], "--device: expected one of auto, cpu, cuda"),
        (["--gamma", "1.5"], "--gamma: expected at most 1"),
        (["--gamma", "1.0000000001"], "--gamma: expected at most 1, got 1.0000000001"),
        (["--num-layers", "1001"], "--num-layers: expected at most 1000, got 1001"),
        (["--gamma", "nan"], "--gamma: expected a finite number"),
        (["--tau", "-0.1"], "--tau: expected at least 0"),
        (["--fast-lr", "0"], "--fast-lr: expected more than 0"),
        (["--fast-lr", "inf"], "--fast-lr: expected a finite number"),
        (["--max-kl", "-1"], "--max-kl: expected more than 0"),
        (["--ls-backtrack-ratio", "1"], "--ls-backtrack-ratio: expected less than 1"),
        (["--num-test-steps", "128"], "--num-test-steps: expected at most 127"),
        (["--num-workers", "-1"], "--num-workers: expected at least 0"),
        (["--inner-objective", "product"], "--inner-objective: expected one of score, ratio, got 'product'"),
        (["--expname", "../up"], "--expname: expected a name without slashes"),
        *[
            ([flag, value], f"{flag}: expected at least 1, got {value}")
            for flag in (
                "--num-context-params", "--nm-size", "--hidden-size", "--num-layers", "--test-freq", "--num-test-steps",
                "--test-batch-size", "--fast-batch-size", "--num-batches", "--meta-batch-size", "--cg-iters",
                "--ls-max-steps", "--save-freq", "--tasks-per-group",
            )
            for value in ("0", "-2")
        ],
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(line, message):
    with pytest.raises(UserError) as caught:
        parse_options(line)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [field for field in dataclasses.fields(Config) if field.type in (int, float)])
def test_every_number_has_bounds_on_the_command_line_and_in_a_file(tmp_path, option):
    """2⁶³ for whole numbers, beyond float32 for others, and 400 digits for both."""
    for text in (str(2**63), "-" + "9" * 400, "9" * 400) if option.type is int else ("1e39", "-1e39", "9" * 400):
        with pytest.raises(UserError, match=rf"^{flag_of(option)}: expected ") as caught:
            parse_options([f"{flag_of(option)}={text}"])
        assert len(str(caught.value)) < 200
        content = json.dumps(whole(**{option.name: "here"})).replace('"here"', text)
        with pytest.raises(UserError, match=rf"config\.json: {flag_of(option)}: expected "):
            load_config(written(tmp_path, content))


@pytest.mark.parametrize("line", [["--gamma", "1"], ["--gamma", "0"], ["--tau", "1.0"], ["--tau", "0"]])
def test_limits_that_are_allowed(line):
    assert parse_options(line)


@pytest.mark.parametrize(
    "line, warnings",
    [
        ([], []),
        (["--nm-gate", "hard"], ["--nm-gate: no effect without --neuromodulation"]),
        (["--nm-gate-bias", "1", "--nm-size", "4"], ["--nm-size, --nm-gate-bias: no effect without --neuromodulation"]),
        (["--nm-size", "4", "--neuromodulation", "--nm-gate", "soft"], []),
        (["--nm-size", "4", "--match-params"], []),
        (["--nm-size", "4", "--match-params", "--nm-gate", "ste"], ["--nm-gate: no effect without --neuromodulation"]),
        (["--num-context-params", "2"], []),
        (["--num-context-params", "2", "--maml"],
         ["--num-context-params: no effect with --maml, which adapts all weights"]),
        (["--exploration-credit", "1", "--meta-batch-size", "1"],
         ["--exploration-credit: no effect with --meta-batch-size 1, over whose tasks returns are standardised"]),
        (["--pre-update-kl", "0.2"],
         ["--pre-update-kl: no effect without --pre-update-return, --exploration-credit or --entropy-bonus"]),
        (["--maml", "--neuromodulation"], []),
        (["--maml", "--neuromodulation", "--nm-without-context"],
         ["--nm-without-context: no effect with --maml, which has no context"]),
        (["--halve-test-lr", "--num-test-steps", "1"],
         ["--halve-test-lr: no effect with --num-test-steps 1: the first update has the whole rate"]),
        (["--outer-step", "ppo", "--max-kl", "0.01", "--clip-eps", "0.2"],
         ["--max-kl: no effect with --outer-step ppo"]),
        (["--clip-eps", "0.3"], ["--clip-eps: no effect with --outer-step trpo"]),
        (["--worker-timeout", "5", "--num-workers", "0"],
         ["--worker-timeout: no effect with --num-workers 0, which is no worker"]),
        (["--neuromodulation", "--nm-gate", "ste", "--nm-gate-bias", "-1"], []),
        (["--neuromodulation", "--nm-gate", "ste", "--nm-gate-bias", "2"],
         ["--nm-gate-bias 2: beyond ±1 ste passes no gradient, so such gates stay; expected a bias within ±1"]),
    ],
)  # fmt: skip
def test_what_is_given_in_vain_is_told(line, warnings):
    given, _ = parse_given(line)
    assert list(without_effect(given, Config(**given))) == warnings


@pytest.mark.parametrize("resume", [[], ["--resume", "auto"]])
def test_what_is_given_in_vain_is_a_warning_and_no_error(resume, tmp_path, capsys):
    line = ["--nm-size", "4", "--nm-gate", "soft", "--logdir", str(tmp_path), *resume]
    config, _ = choose(line)
    assert config.nm_size == 4
    assert capsys.readouterr().err == "warning: --nm-size, --nm-gate: no effect without --neuromodulation\n"


@pytest.mark.parametrize("device, gpu, told", [
    ("cpu", True, True), ("auto", False, True), ("auto", True, False), ("cuda", True, False)
])  # fmt: skip
def test_tf32_is_nothing_to_the_cpu(device, gpu, told):
    given, _ = parse_given(["--device", device, "--tf32"])
    assert list(without_effect(given, Config(**given), gpu)) == ["--tf32: no effect on the CPU"] * told


def test_every_option_of_the_gates_is_told_of():
    """Those that are still to come, too."""
    options = [field.name for field in dataclasses.fields(Config) if field.name.startswith("nm_")]
    (warning,) = without_effect(dict.fromkeys(options), Config())
    assert len(options) >= 3 and all(flag_of(Config.__dataclass_fields__[name]) in warning for name in options)


def test_a_config_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


def written(tmp_path, content):
    path = tmp_path / "config.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def test_what_changes_no_result_is_declared_beside_the_option():
    assert {
        "num_workers", "worker_timeout", "learner_memory", "learner_threads", "make_deterministic", "expname", "device",
        "quiet", "wandb", "save_freq", "logdir", "savedir",
    } == NEUTRAL  # fmt: skip
    assert NEUTRAL - {"expname"} | {"num_batches", "test_freq"} == RESUMABLE
    assert NEUTRAL | {"seed", "env_config_path", "test_freq"} == UNGROUPED


def whole(**changes):
    return dataclasses.asdict(Config()) | changes


def without(*names):
    return {name: value for name, value in whole(seed=7).items() if name not in names}


def test_a_config_comes_back_from_its_file(tmp_path):
    """With what else stands there; what an older file lacks takes its default, and whole numbers are floats, too."""
    config = Config(seed=7, fast_lr=0.1, neuromodulation=True, nm_gate="soft", expname="name", num_workers=3)
    extra = {"input_size": 2, "output_size": 3, "versions": {"torch": "1"}, "git_commit": None}
    assert load_config(written(tmp_path, dataclasses.asdict(config) | extra)) == (config, extra | {"run_seed": 7})
    older = without("tasks_per_group", "device", "tf32")
    assert load_config(written(tmp_path, older)) == (Config(seed=7), {"run_seed": 7})
    assert load_config(written(tmp_path, whole(fast_lr=1)))[0].fast_lr == 1


NO_FILE, NO_OBJECT = "expected a JSON file", "expected a JSON object"


@pytest.mark.parametrize(
    "content, words",
    [
        *((without(name), f"lacks the keys {name}") for name in ("env_name", "maml", "fast_lr", "num_context_params")),
        (whole(zeal=1, hidden_sizes=3), "unknown keys hidden_sizes, zeal"),
        *((whole(hidden_size=value), "--hidden-size: expected int") for value in (True, 10.0, "10", None)),
        *((whole(maml=value), "--maml: expected bool") for value in (1, "false")),
        *((whole(fast_lr=value), "--fast-lr: expected float") for value in (False, "0.1", [0.1])),
        (whole(env_name=3), "--env-name: expected str"),
        (whole(env_config_path=None), "--env-config-path: expected str"),
        (whole(hidden_size=0), "--hidden-size: expected at least 1"),
        (whole(nonlinearity="sigmoid"), "--nonlinearity: expected one of"),
        (json.dumps(whole(fast_lr=0.5)).replace("0.5", "1" + "0" * 400), ""),  # too large for a float
        *((text, NO_FILE) for text in ("", "{", "[" * 100_000, "\udcff\udcfe\0", None)),
        *((text, NO_OBJECT) for text in ("[1, 2]", "3", "null")),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "config.json" if content is None else written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert "config.json" in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError):
        load_config(tmp_path)


def test_a_config_of_before_num_test_tasks_keeps_its_numbers_of_tasks_and_episodes(tmp_path):
    content = dataclasses.asdict(Config(test_batch_size=30, fast_batch_size=7))
    content.pop("num_test_tasks")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    earlier, description = load_config(path)
    assert (earlier.test_tasks, earlier.test_batch_size) == (30, 7) and description["older_test_batch_size"]
    path.write_text(json.dumps(content | {"num_test_tasks": 0, "meta_batch_size": 9}))
    now, description = load_config(path)
    assert (now.test_tasks, now.test_batch_size) == (9, 30) and "older_test_batch_size" not in description

"""Files of the right name with something else in them: one line that names the file and says what was expected."""

import json
import shutil

import numpy as np
import pytest
import torch

from rl import plot, test
from rl.algorithm.trpo import TRPO, Options
from rl.errors import UserError
from rl.evaluation.references import read_reference
from rl.run.checkpoint import Counters, State, load_policy, load_state, save_state
from tests.support.helpers import only_run, random_params, small_policy

POLICY = small_policy("normal", "hard")
# Of an array: what may have become of it.
ARRAYS = {
    "text": lambda values: values.astype(str),
    "complex": lambda values: values.astype(complex),
    "an axis less": lambda values: values[0],
    "an axis more": lambda values: values[None],
    "nothing": lambda values: values[:0],
    "one less": lambda values: values[:-1],
    "one number": lambda values: np.float32(3),
    "records": lambda values: np.zeros(values.shape, [("a", "f4")]),
}
READ = {  # by the commands of plot.py: file -> arrays
    "adaptation": {"rewards.npy": [""]},
    "trajectories": {"episodes.npz": ["observations", "actions", "mask"]},
    "gates": {"probe.npz": ["observations", "tasks", "layer1.gates", "layer2.output"]},
}
CASES = [(command, file, name) for command, files in READ.items() for file, names in files.items() for name in names]


def complaint(capsys, program, *line):
    """The one line on standard error."""
    capsys.readouterr()
    assert program.main([str(word) for word in line]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    return told


@pytest.fixture
def folder(tiny, tmp_path):
    """An evaluation's folder that a test may damage."""
    return shutil.copytree(tiny.evaluation("navigation"), tmp_path / "evaluation")


@pytest.mark.parametrize("command, file, name", CASES)
def test_an_array_of_an_evaluation_is_as_its_schema_says(folder, capsys, command, file, name):
    whole = np.load(folder / file)
    arrays = {"": whole} if file.endswith(".npy") else dict(whole)
    for kind, damage in ARRAYS.items():
        if kind == "one less" and name in ("", "observations", "mask"):
            continue  # the number of tasks, or of observations, is that of the other arrays
        other = damage(arrays[name])
        if name:
            np.savez(folder / file, **arrays | {name: other})
        else:
            np.save(folder / file, other)
        told = complaint(capsys, plot, command, folder, "--output", folder / "picture")
        assert told.startswith(f"plot.py: {folder / file}: ") and "expected" in told, kind
    if name:
        np.savez(folder / file, **{other: values for other, values in arrays.items() if other != name})
        if not name.startswith("layer"):
            told = complaint(capsys, plot, command, folder, "--output", folder / "picture")
            assert told.startswith(f"plot.py: {folder / file}: ") and "expected" in told
    assert not list(folder.glob("picture*"))


@pytest.mark.parametrize("name, value", [
    ("split", ["test"]), ("modulation", 3),
    *(("success_per_task", value) for value in (
        [[0.0, 1.0], [0.5]], [[0.0] * 5] * 3, [[7.0] * 6] * 3, [[None] * 6] * 3, [["1e999"] * 6] * 3, {"any": 1}, "all",
        10**400,
    )),
])  # fmt: skip
def test_results_are_as_they_should_be(folder, capsys, name, value):
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {name: value}))
    told = complaint(capsys, plot, "adaptation", folder, "--output", folder / "picture")
    assert told.startswith(f"plot.py: {folder / 'results.json'}: {name}: expected")


@pytest.mark.parametrize("tasks", [[{}] * 6, [{"goal": "left"}] * 6, [{"goal": None}] * 6, [{"goal": [1.0, 2.0]}] * 5])
def test_tasks_that_are_another_environments(folder, capsys, tasks):
    (folder / "tasks.json").write_text(json.dumps(tasks))
    told = complaint(capsys, plot, "trajectories", folder, "--output", folder / "picture")
    assert told.startswith(f"plot.py: {folder}") or told.startswith("plot.py: environment 2DNavigation-v0: ")


@pytest.mark.parametrize("kind", ["float64", "int64", "str", "flat", "empty"])
def test_a_probe_is_checked_on_entry(tiny, folder, tmp_path, capsys, kind):
    arrays = dict(np.load(folder / "probe.npz"))
    seen = arrays["observations"]
    other = {"flat": seen[:, 0], "empty": seen[:0]}.get(kind)
    np.savez(folder / "probe.npz", **arrays | {"observations": seen.astype(kind) if other is None else other})
    policy = only_run(tiny.folder / "navigation" / "saves") / "policy-1.pt"
    line = [tiny.run("navigation") / "config.json", policy, "--probe", folder, "--logdir", tmp_path / "logs"]
    told = complaint(capsys, test, *line)
    assert told.startswith(f"test.py: {folder / 'probe.npz'}: observations: expected Float32 [N O], O = 2; found ")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("rows", ["0,nan\n", "0,1\n0,2\n", "1,1\n0,2\n", "0,inf\n", "x,1\n", "0,one\n", "9e99,1\n", ""])
def test_curves_that_are_none(tiny, tmp_path, capsys, rows):
    run = shutil.copytree(tiny.run("plain"), tmp_path / "run")
    (run / "progress.csv").write_text(f"iteration,running_returns/after_update\n{rows}")
    assert complaint(capsys, plot, "curves", run, "--output", tmp_path / "picture").startswith(f"plot.py: {run}")


def test_curves_of_a_log_that_was_cut_anywhere(tiny, tmp_path, capsys):
    """As a power cut does: either the whole lines are drawn, or it is said that there are none."""
    run = shutil.copytree(tiny.run("plain"), tmp_path / "run")
    whole = (run / "progress.csv").read_bytes()
    lines = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 1, lines[0] - 1, lines[0], lines[0] + 1, lines[1] - 1):
        (run / "progress.csv").write_bytes(whole[:cut])
        assert str(run) in complaint(capsys, plot, "curves", run, "--output", tmp_path / "picture")
    (run / "progress.csv").write_bytes(whole[: lines[2] - 1])
    assert plot.main(["curves", str(run), "--output", str(tmp_path / "picture")]) == 0
    assert "1 run(s)" in capsys.readouterr().out


def tensors(kind):
    params = random_params(POLICY, dtype=torch.float32)
    name = next(iter(params))
    value = params[name]
    return params | {name: {
        "nan": value * torch.nan,
        "complex": value.to(torch.complex64),
        "nested": torch.nested.nested_tensor([value, value]),
        "word": "a string",
        "float64": value.double(),
    }[kind]}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["nan", "complex", "nested", "word", "float64"])
def test_parameters_of_another_kind(tmp_path, kind):
    torch.save(tensors(kind), tmp_path / "policy.pt")
    if kind != "float64":  # as of published policies
        with pytest.raises(UserError, match=r"policy\.pt: .*expected"):
            load_policy(tmp_path / "policy.pt", POLICY)
    state = State(1, random_params(POLICY, dtype=torch.float32), Counters())
    save_state(tmp_path, state)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    changes = [{"params": tensors(kind)}, {"outer_state": tensors(kind)}]
    for change in changes[: 1 if kind == "float64" else 2]:
        torch.save(content | change, tmp_path / "state.pt")
        with pytest.raises(UserError, match=r"state\.pt: .*expected"):
            load_state(tmp_path, POLICY, TRPO(Options()))


@pytest.mark.parametrize("facts", ["[" * 100_000, "7", '{"iteration": 1e400}', '{"iteration": "1", "counters": {}}'])
def test_a_state_whose_facts_are_none(tmp_path, facts):
    torch.save({"facts": facts, "params": random_params(POLICY, dtype=torch.float32)}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt: expected a run's state"):
        load_state(tmp_path, POLICY, TRPO(Options()))


@pytest.mark.parametrize("change", [
    {"options": None}, {"environment": []}, {"after_update": "x"}, {"iteration": [1, 1]}, {"after_update": [[1], [2]]},
    {"after_update": [1e400, 1]}, {"after_update": [10**400, 1]}, {"iteration": None}, {"after_update": {"a": 1}},
])  # fmt: skip
def test_a_reference_curve_is_one(tmp_path, change):
    content = {"environment": "e", "method": "m", "source": "s", "iteration": [0, 1], "after_update": [1.0, 2.0]}
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(content))
    assert read_reference(path).curves["after_update"].to_dict() == {0: 1.0, 1: 2.0}
    path.write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=r"reference\.json: expected"):
        read_reference(path)

"""The commands of README.md, run as written but shorter: the options that shorten them are added at the end."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support.documents import README, code_blocks, commands, training_command
from tests.support.helpers import ROOT

FEWER_BATCHES = ["--num-batches", "1"]
# One worker starts faster than four and computes the same.
SMALL = [
    *FEWER_BATCHES, "--meta-batch-size", "2", "--fast-batch-size", "2", "--test-batch-size", "2", "--num-workers", "1",
]  # fmt: skip
# Words that single out README's training commands: those run by tests of their own, and those that are only run.
ALONE = ["2DNavigation-v0", "./envs/ctgraph/ctgraph_d2.json", "line:Line-v0"]
LARGER = [
    "./envs/ctgraph/ctgraph_d3.json", "./envs/ctgraph/ctgraph_d4.json", "HalfCheetahDir-v1", "AntVel-v1", "ML1Push-v2",
]  # fmt: skip
LARGER_AND_SLOW = ["HalfCheetahVel-v1", "AntDir-v1", "AntPos-v0", "ML45-v2"]
# The README gives them the options of AntVel-v1.
LIKE_ANT_VEL = {"AntDir-v1", "AntPos-v0"}


def evaluations():
    """README's test.py commands for any run: (that for a run of 2D navigation, that for one of the CT-graph)."""
    found = [arguments for arguments in commands("test.py") if not {"--num-tasks", *kept()} & set(arguments)]
    (plain,) = (arguments for arguments in found if "--env-config-path" not in arguments)
    (with_file,) = (arguments for arguments in found if "--env-config-path" in arguments)
    return plain, with_file


def kept():
    """The arguments of README's test.py command for a policy that results/ keeps."""
    (found,) = (arguments for arguments in commands("test.py") if arguments[0].startswith("../results/"))
    return found


def comparisons():
    """README's test.py commands that compare two methods, the neuromodulated one first."""
    return [arguments for arguments in commands("test.py") if "--num-tasks" in arguments]


def variants():
    """README's table of variants but for the unchanged one: (name, folder, the changed 2D navigation command)."""
    navigation = training_command("2DNavigation-v0")
    for name, change, folder in re.findall(r"^\| (.*?(?:CAVIA|MAML).*?) \| (.*?) \| `(\w+)` \|$", README, re.MULTILINE):
        text = " ".join(navigation)
        if change == "none":
            continue
        for options in re.findall(r"leave out `(.*?)`", change):
            assert text.count(options) == 1
            text = text.replace(options, "")
        for options in re.findall(r"add `(.*?)`", change):
            text += " " + options
        yield name, folder, text.split()


def run(program, arguments, **environment):
    """Run a program of rl/ as the README says, in rl/."""
    done = subprocess.run(
        [sys.executable, program, *arguments],
        cwd=ROOT / "rl", env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{program} {shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def train(arguments, folder, shorter, **environment):
    """Run main.py, logs and policies below `folder`: (its log folder, its folder of policies)."""
    run("main.py", [*arguments, *shorter, "--logdir", f"{folder}/logs", "--savedir", f"{folder}/saves"], **environment)
    return tuple(next((folder / tree).glob("*/*/*")) for tree in ("logs", "saves"))


def evaluate(arguments, logs, saves, folder):
    """Run a test.py command of the README on a run: (its output, the folder of the evaluation)."""
    placeholders = {
        "logs/<env>/<method>/<run>": str(logs),
        "saves/<env>/<method>/<run>": str(saves),
        "<iteration>": "0",
    }
    for placeholder, value in placeholders.items():
        arguments = [argument.replace(placeholder, value) for argument in arguments]
    output = run("test.py", [*arguments, "--num-tasks", "2", "--num-workers", "1", "--logdir", f"{folder}/logs"])
    return output, next((folder / "logs").glob("*/*_test/*"))


def files_of_a(folder):
    """The files that README lists for a folder: names, with * where they vary."""
    (listed,) = re.findall(rf"^{re.escape(folder)}\n((?: +.*\n)+)", README, re.MULTILINE)
    return {line.split()[0].replace("<iteration>", "*") for line in listed.splitlines()}


def check_files(folder, listed, environment_file):
    """`folder` holds what `listed` names and nothing else; the environment's file where there is one."""
    listed = listed - {"success_metric.npy", "video-task<k>.mp4,"}
    if not environment_file:
        listed = listed - {"ctgraph_d2.json"}
    found = {pattern: set(folder.glob(pattern)) for pattern in listed}
    assert all(found.values()), found
    assert set().union(*found.values()) == set(folder.iterdir())


@pytest.fixture(scope="module")
def navigation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("navigation")
    return train(training_command("2DNavigation-v0"), folder, FEWER_BATCHES)


@pytest.fixture(scope="module")
def ctgraph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctgraph")
    return train(training_command("./envs/ctgraph/ctgraph_d2.json"), folder, FEWER_BATCHES)


@pytest.mark.parametrize("name, environment_file", [("navigation", False), ("ctgraph", True)])
def test_training_writes_the_files_listed(name, environment_file, request):
    logs, saves = request.getfixturevalue(name)
    assert logs.parent.name == saves.parent.name == "nm_cavia"
    check_files(logs, files_of_a("logs/<env>/<method>/<run>/"), environment_file)
    check_files(saves, files_of_a("saves/<env>/<method>/<run>/"), environment_file)


@pytest.mark.parametrize("number, name, environment_file", [(0, "navigation", False), (1, "ctgraph", True)])
def test_evaluation_prints_the_table_and_writes_the_files_listed(number, name, environment_file, request, tmp_path):
    output, folder = evaluate(evaluations()[number], *request.getfixturevalue(name), tmp_path)
    check_files(folder, files_of_a("logs/<env>/<method>_test/<run>/"), environment_file)
    (sample,) = (block for block in code_blocks("text") if block.startswith("return on"))
    # The same lines as the README shows, number for number.
    assert shape_of(output.partition("return on")[2]) == shape_of(sample.partition("return on")[2])


def test_the_comparison_of_two_methods(navigation, tmp_path):
    """README's commands from two runs to a picture of both, with the folders that they name."""
    (plain,) = (arguments for name, _, arguments in variants() if name == "plain CAVIA")
    folders = {"nm_cavia": navigation, "cavia": train(plain, tmp_path, SMALL)}
    place = {"policy-40.pt": "policy-0.pt", "../docs/pictures/representation": str(tmp_path / "representation")}
    for method, (logs, saves) in folders.items():
        for tree, folder in (("logs", logs), ("saves", saves)):
            place[f"{tree}/2DNavigation-v0/{method}/<run>"] = str(folder)

    def placed(arguments):
        for placeholder, value in place.items():
            arguments = [argument.replace(placeholder, value) for argument in arguments]
        return arguments

    for arguments, method in zip(comparisons(), folders, strict=True):
        run("test.py", [*placed(arguments), "--num-tasks", "2", "--num-workers", "1", "--logdir", f"{tmp_path}/logs"])
        (folder,) = (tmp_path / "logs/2DNavigation-v0" / f"{method}_test").iterdir()
        place[f"logs/2DNavigation-v0/{method}_test/<run>"] = str(folder)
    (picture,) = (arguments for arguments in commands("plot.py") if "--against" in arguments)
    assert f"written: {tmp_path}/representation.png" in run("plot.py", placed(picture))


def test_a_policy_that_is_kept_can_be_evaluated(tmp_path):
    assert "return on 2 tasks" in run(
        "test.py", [*kept(), "--num-tasks", "2", "--num-workers", "1", "--logdir", str(tmp_path)]
    )


def shape_of(table):
    """A printed table with its numbers and its paths made equal."""
    lines = [line for line in table.splitlines() if not line.startswith(("TensorBoard", "policy"))]
    return [re.sub(r"[-±]?[\d.]+|\bnone\b|(/|…).*", "#", line).split() for line in lines]


@pytest.mark.parametrize(
    "folder, arguments", [pytest.param(folder, arguments, id=name) for name, folder, arguments in variants()]
)
def test_variants(folder, arguments, tmp_path):
    logs, _ = train(arguments, tmp_path, SMALL)
    assert logs.parent.name == folder


@pytest.mark.parametrize("word", [*LARGER, *[pytest.param(word, marks=pytest.mark.slow) for word in LARGER_AND_SLOW]])
def test_the_larger_commands(word, tmp_path):
    like = "AntVel-v1" if word in LIKE_ANT_VEL else word
    arguments = [word if argument == like else argument for argument in training_command(like)]
    # ML45 draws equally from 45 classes to train on and 5 to evaluate on.
    divisible = ["--meta-batch-size", "45", "--test-batch-size", "5"] if word == "ML45-v2" else []
    train(arguments, tmp_path, SMALL + divisible)


def test_an_environment_of_ones_own(tmp_path):
    (source,) = code_blocks("python")
    (tmp_path / "line.py").write_text(source, encoding="utf-8")
    logs, saves = train(training_command("line:Line-v0"), tmp_path, SMALL, PYTHONPATH=str(tmp_path))
    assert logs.parts[-3] == "line_Line-v0"
    assert (saves / "policy-0.pt").is_file()


def test_every_command_is_run():
    """A command added to the README needs a test here (those of plot.py: tests/test_plot.py)."""
    words = [*ALONE, *sorted({*LARGER, *LARGER_AND_SLOW} - LIKE_ANT_VEL)]
    assert sorted(commands("main.py")) == sorted(training_command(word) for word in words)
    assert sorted(commands("test.py")) == sorted([*evaluations(), *comparisons(), kept()])

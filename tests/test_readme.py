"""The commands of README.md and docs/, run as written but shorter: options that shorten them are added at the end.

In this process: to start Python and import torch takes seconds. How programs are started: tests/test_start.py.
"""

import contextlib
import io
import re
import shlex

import pytest

from rl import main, plot, test
from tests.support.documents import PAGES, code_blocks, command_lines, commands, training_command
from tests.support.helpers import ROOT

FEWER_BATCHES = ["--num-batches", "1"]
FEWER_EPISODES = ["--meta-batch-size", "2", "--fast-batch-size", "2", "--num-test-tasks", "2", "--test-batch-size", "2"]
# The program itself computes the same, and starts no worker.
SMALL = [*FEWER_BATCHES, *FEWER_EPISODES, "--num-workers", "0"]
# Words that single out training commands of docs/experiments.md: those of the fixtures, and those that are only run.
ALONE = ["2DNavigation-v0", "./envs/ctgraph/ctgraph_d2.json"]
LARGER = [
    "./envs/ctgraph/ctgraph_d3.json", "./envs/ctgraph/ctgraph_d4.json", "HalfCheetahDir-v1", "AntVel-v1",
]  # fmt: skip
LARGER_AND_SLOW = ["ML1Push-v2", "ML1Reach-v2", "HalfCheetahVel-v1", "AntDir-v1", "AntPos-v0", "ML45-v2"]
# docs/experiments.md gives them the options of AntVel-v1.
LIKE_ANT_VEL = {"AntDir-v1", "AntPos-v0"}
# What is run elsewhere, or is no program of this project.
ELSEWHERE = {
    "PYTHONPATH=../examples python main.py --env-name line:Line-v0 ": "tests/test_examples.py",
    "PYTHONPATH=examples python -m rl.envs.check line:Line-v0": "tests/test_examples.py",
    "python -m tests.conformance tests/golden/*.npz": "tests/algorithm/test_conformance.py",
    "python -m tests.conformance --replay ": "tests/algorithm/test_conformance.py",
}
OTHER_PROGRAMS = {"cd", "cmp", "make", "pip", "snakemake", "source", "tensorboard"}


def evaluations():
    """The test.py commands of docs/evaluation.md: (for a run of 2D navigation, for one of the CT-graph, for a policy
    that results/ keeps).
    """
    found = commands("test.py", "docs/evaluation.md")
    (kept,) = (arguments for arguments in found if arguments[0].startswith("../results/"))
    plain, with_file = (arguments for arguments in found if arguments != kept)
    assert "--env-config-path" in with_file
    return plain, with_file, kept


def variants():
    """The table of methods but for the unchanged one: (name, folder, the changed 2D navigation command)."""
    navigation = training_command("2DNavigation-v0")
    page = PAGES["docs/experiments.md"]
    for name, change, folder in re.findall(r"^\| (.*?(?:CAVIA|MAML).*?) \| (.*?) \| `(\w+)` \|$", page, re.MULTILINE):
        text = " ".join(navigation)
        if change == "none":
            continue
        for options in re.findall(r"leave out `(.*?)`", change):
            assert text.count(options) == 1
            text = text.replace(options, "")
        for options in re.findall(r"add `(.*?)`", change):
            text += " " + options
        yield name, folder, text.split()


def run(program, arguments):
    """Run a program of rl/ in rl/: what it prints."""
    printed = io.StringIO()
    with contextlib.chdir(ROOT / "rl"), contextlib.redirect_stdout(printed):
        status = {"main.py": main.program, "test.py": test.main, "plot.py": plot.main}[program](arguments)
    assert status == 0, f"{program} {shlex.join(arguments)}\n{printed.getvalue()}"
    return printed.getvalue()


def train(arguments, folder, shorter):
    """Run main.py, logs and policies below `folder`: (its log folder, its folder of policies)."""
    run("main.py", [*arguments, *shorter, "--logdir", f"{folder}/logs", "--savedir", f"{folder}/saves"])
    return tuple(next((folder / tree).glob("*/*/*")) for tree in ("logs", "saves"))


def evaluate(arguments, logs, saves, folder):
    """Run a test.py command on a run: (its output, the folder of the evaluation)."""
    placeholders = {
        "logs/<env>/<method>/<run>": str(logs),
        "saves/<env>/<method>/<run>": str(saves),
        "<iteration>": "0",
    }
    for placeholder, value in placeholders.items():
        arguments = [argument.replace(placeholder, value) for argument in arguments]
    output = run("test.py", [*arguments, "--num-tasks", "2", "--num-workers", "0", "--logdir", f"{folder}/logs"])
    return output, next((folder / "logs").glob("*/*_test/*"))


def files_of_a(folder):
    """The files that docs/files.md lists for a folder: names, with * where they vary."""
    (listed,) = re.findall(rf"^{re.escape(folder)}\n((?: +.*\n)+)", PAGES["docs/files.md"], re.MULTILINE)
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
    return train(training_command("2DNavigation-v0"), folder, SMALL)


@pytest.fixture(scope="module")
def ctgraph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctgraph")
    return train(training_command("./envs/ctgraph/ctgraph_d2.json"), folder, SMALL)


@pytest.mark.parametrize("name, environment_file", [("navigation", False), ("ctgraph", True)])
def test_training_writes_the_files_listed(name, environment_file, request):
    logs, saves = request.getfixturevalue(name)
    assert logs.parent.name == saves.parent.name == "nm_cavia"
    check_files(logs, files_of_a("logs/<env>/<method>/<run>/"), environment_file)
    check_files(saves, files_of_a("saves/<env>/<method>/<run>/"), environment_file)


@pytest.mark.parametrize("number, name, environment_file", [(0, "navigation", False), (1, "ctgraph", True)])
def test_evaluation_prints_the_table_and_writes_the_files_listed(number, name, environment_file, request, tmp_path):
    output, folder = evaluate(evaluations()[number], *request.getfixturevalue(name), tmp_path)
    check_files(folder, files_of_a("logs/<env>/<method>_test/<evaluation>/"), environment_file)
    # The same lines as README shows, number for number.
    (sample,) = code_blocks("text", "README.md")
    assert shape_of(output.partition("return on")[2]) == shape_of(sample.partition("return on")[2])


def placed(arguments, places):
    """A command's arguments with the placeholders replaced that `places` names."""
    for placeholder, value in places.items():
        arguments = [argument.replace(placeholder, str(value)) for argument in arguments]
    return arguments


def kept_shorter(folder):
    """What shortens the evaluation of a policy that results/ keeps."""
    return ["--num-tasks", "2", "--num-workers", "0", "--logdir", str(folder)]


@pytest.mark.slow
def test_the_front_pages_commands(tmp_path):
    """Train, evaluate with a film, draw: each with the folder that the one before it has made; then a kept policy."""
    (training,), (evaluation, kept), (picture,) = (
        commands(f"{name}.py", "README.md") for name in ("main", "test", "plot")
    )
    logs, saves = train(training, tmp_path, SMALL)
    places = {
        "logs/2DNavigation-v0/nm_cavia/<run>": logs,
        "saves/2DNavigation-v0/nm_cavia/<run>": saves,
        f"policy-{int(training[-1]) - 1}.pt": "policy-0.pt",
    }
    output, folder = evaluate(placed(evaluation, places), logs, saves, tmp_path)
    assert "return on 2 tasks" in output and len(list(folder.glob("video-task?.gif"))) == 1
    written = run("plot.py", placed(picture, {"logs/2DNavigation-v0/nm_cavia_test/<evaluation>": folder}))
    assert f"written: {folder}/trajectories.png" in written
    assert "return on 2 tasks" in run("test.py", [*kept, *kept_shorter(tmp_path)])


def test_the_comparison_of_two_methods(navigation, tmp_path):
    """The commands of docs/figures.md from two runs to a picture of both, with the folders that they name."""
    (plain,) = (arguments for name, _, arguments in variants() if name == "plain CAVIA")
    folders = {"nm_cavia": navigation, "cavia": train(plain, tmp_path, SMALL)}
    places = {"policy-40.pt": "policy-0.pt", "../docs/pictures/representation": f"{tmp_path}/representation"}
    for method, (logs, saves) in folders.items():
        for tree, folder in (("logs", logs), ("saves", saves)):
            places[f"{tree}/2DNavigation-v0/{method}/<run>"] = folder
    compared = [arguments for arguments in commands("test.py", "docs/figures.md") if arguments[0].startswith("logs/")]
    for arguments, method in zip(compared, folders, strict=True):
        short = ["--num-tasks", "2", "--num-workers", "0", "--logdir", f"{tmp_path}/logs"]
        run("test.py", [*placed(arguments, places), *short])
        (folder,) = (tmp_path / "logs/2DNavigation-v0" / f"{method}_test").iterdir()
        places[f"logs/2DNavigation-v0/{method}_test/<evaluation>"] = folder
    (picture,) = (arguments for arguments in commands("plot.py") if "--against" in arguments)
    assert f"written: {tmp_path}/representation.png" in run("plot.py", placed(picture, places))


def test_a_policy_that_is_kept_can_be_evaluated_and_filmed(tmp_path):
    films = [arguments for arguments in commands("test.py", "docs/figures.md") if "--video" in arguments]
    assert all((ROOT / "rl" / path).is_file() for arguments in films for path in arguments[:2])
    (navigation,) = (arguments for arguments in films if "navigation" in arguments[0])  # the other one needs OpenGL
    for arguments in (evaluations()[2], navigation):
        told = run("test.py", [*arguments, *kept_shorter(tmp_path)])
        assert "return on 2 tasks" in told and (".mp4" in told) == ("--video" in arguments)


def test_equal_bytes_and_resuming(tmp_path):
    """The commands of docs/reproducibility.md write equal policies; that of docs/robustness.md goes on with one run."""
    # Three groups of tasks, so that three workers have something to do.
    shorter = [*FEWER_EPISODES, "--meta-batch-size", "12"]
    runs = [
        train(arguments, tmp_path / str(number), shorter)
        for number, arguments in enumerate(commands("main.py", "docs/reproducibility.md"))
    ]
    first, second = ((saves / "policy-2.pt").read_bytes() for _, saves in runs)
    assert first == second
    (resuming,) = commands("main.py", "docs/robustness.md")
    logs, saves = runs[0]
    options = ["--num-batches", "4", "--savedir", str(tmp_path / "0/saves")]
    run("main.py", [*placed(resuming, {"logs/<env>/<method>/<run>": logs}), *options])
    assert (saves / "policy-3.pt").is_file()


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
    divisible = ["--meta-batch-size", "45", "--num-test-tasks", "5"] if word == "ML45-v2" else []
    train(arguments, tmp_path, SMALL + divisible)


def test_every_command_is_run():
    """A command added to a page needs a test here (those of plot.py: tests/test_plot.py)."""
    words = [*ALONE, *sorted({*LARGER, *LARGER_AND_SLOW} - LIKE_ANT_VEL)]
    run_here = [
        *(training_command(word) for word in words),
        *(
            line
            for page in ("README", "docs/reproducibility", "docs/robustness")
            for line in commands("main.py", f"{page}.md")
        ),
        *evaluations(),
        *(line for page in ("README", "docs/figures") for line in commands("test.py", f"{page}.md")),
        *commands("plot.py"),
    ]
    expected = {shlex.join(arguments) for arguments in run_here}
    for line in command_lines():
        arguments = shlex.split(line)
        elsewhere = any(line.startswith(beginning) for beginning in ELSEWHERE)
        assert elsewhere or arguments[0] in OTHER_PROGRAMS or shlex.join(arguments[2:]) in expected, line
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())
    # tests/test_examples.py runs what the example's docstring says.
    (own,) = (line for line in command_lines() if "line:Line-v0 " in line)
    assert own in (ROOT / "examples/line.py").read_text(encoding="utf-8")


def test_targets_of_make_exist():
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"`make ([\w-]+)", "".join(PAGES.values())) + [
        line.split()[1] for line in command_lines() if line.startswith("make ")
    ]
    assert set(named) - set(rules) == set() and len(set(named)) > 5

"""What the documents say exists: options, tags, files, headings, modules."""

import csv
import pkgutil
import re
import sys
import types

import numpy as np
import pytest

from rl import envs, plot
from rl import test as evaluation_program
from rl.config import make_parser
from rl.evaluation.evaluate import Evaluated, Summary
from rl.run import metrics
from rl.run.checkpoint import Counters
from rl.sampling.episodes import Episodes
from tests.support.documents import PAGES, code_blocks, training_command
from tests.support.helpers import ROOT

# Options of ruff, tests.conformance, benchmarks/ and snakemake; of torchrun; of Slurm.
OTHERS = {
    *("--check", "--replay", "--scaling", "--model", "--snakefile", "--executor", "--jobs", "--config"),
    *("--standalone", "--nnodes", "--nproc-per-node", "--max-restarts"),
    *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--local-addr"),
    *("--nodes", "--ntasks-per-node", "--cpus-per-task", "--time"),
}
FOLDERS = "benchmarks|docs|examples|studies|results|rl|tests"

every_page = pytest.mark.parametrize("page", PAGES)


def flags(text):
    """All long options in a text."""
    return set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text))


@pytest.fixture
def known_flags(capsys):
    """What main.py, test.py and plot.py take."""
    with pytest.raises(SystemExit):
        evaluation_program.parse(["--help"])
    for command in ("curves", "adaptation", "table", "trajectories", "representation", "gates"):
        with pytest.raises(SystemExit):
            plot.parse([command, "--help"])
    return flags(make_parser().format_help()) | flags(capsys.readouterr().out)


@every_page
def test_options_named_in_documents_exist(page, known_flags):
    assert flags(PAGES[page]) <= known_flags | OTHERS


def test_some_options_are_named():
    """The search above finds what it should."""
    assert {"--fast-lr", "--make_deterministic"} == flags("`--fast-lr`, --make_deterministic and em--dash, ---")
    assert len(flags(PAGES["docs/experiments.md"])) > 20


def anchors(text):
    """The names by which a page's headings are linked to: small letters, hyphens for spaces, no other signs."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page, text):
    """The relative links of a page that lead nowhere."""
    broken = []
    for target in re.findall(r"\]\((?!https?://)(.*?)\)", text):
        file, _, heading = target.partition("#")
        linked = (ROOT / page).parent / file if file else ROOT / page
        lost = not linked.exists() or (heading and heading not in anchors(linked.read_text(encoding="utf-8")))
        broken += [target] if lost else []
    return broken


def missing_files(page, text):
    """What a page names in backticks, or gives to a command, and is no file of the repository. Paths start at its root,
    at the page, or in rl/, where the programs are run; the published code's files are not ours.
    """
    text = re.sub(r"[Pp]ublished\s+(code's\s+)?`[^`]*`", "", text)
    named = re.findall(rf"`((?:{FOLDERS})/[^\s`<]*|[\w./-]+\.(?:py|md|toml))`", text)
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        named += re.findall(rf"(?<!\S)((?:\.\./)?(?:{FOLDERS})/[^\s<]*)(?!\S)", block)
    places = (ROOT, (ROOT / page).parent, ROOT / "rl")
    return [name for name in named if not any(stands_for_something(place, name) for place in places)]


def stands_for_something(place, name):
    """Whether a name is that of a file or folder, of a picture without its suffix, or with a * that a file fits."""
    return (place / name).exists() or (place / f"{name}.png").exists() or ("*" in name and any(place.glob(name)))


def missing_names(text):
    """The dotted names of our packages that a page names and Python does not find."""
    missing = []
    for name in re.findall(r"(?<![\w./])((?:rl|tests)(?:\.[A-Za-z_]\w*)+)", text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    return [name for name in missing if not name.endswith((".py", ".txt"))]


@every_page
def test_links_lead_somewhere(page):
    assert broken_links(page, PAGES[page]) == []


@every_page
def test_files_named_in_documents_exist(page):
    assert missing_files(page, PAGES[page]) == []


@every_page
def test_modules_named_in_documents_exist(page):
    assert missing_names(PAGES[page]) == []


def test_the_searches_find_what_is_stale():
    page = "docs/metrics.md"
    text = "[a](files.md#files-of-a-run) [b](gone.md) [c](#gone) [d](../README.md) [e](https://example.org/x)"
    assert broken_links(page, text) == ["gone.md", "#gone"]
    text = (
        "`rl/main.py` `rl/gone.py` `main.py` `gone.py` published `policies/mlp.py` `tests/golden/*.npz` `docs/gone.md`"
    )
    assert missing_files(page, text) == ["rl/gone.py", "gone.py", "docs/gone.md"]
    assert missing_files(page, "```bash\npython x.py ../docs/gone.json docs/files.md\n```\n") == ["../docs/gone.json"]
    assert missing_names("`rl.files.write_text` `rl.gone` `python -m tests.conformance` rl.files.gone") == [
        "rl.gone", "rl.files.gone"
    ]  # fmt: skip


def test_the_code_names_pages_that_exist():
    sources = [*(ROOT / "rl").rglob("*.py"), *(ROOT / "studies").iterdir(), ROOT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.is_file())
    named = set(re.findall(r"docs/[\w/-]+\.md", text))
    assert named and [name for name in named if not (ROOT / name).is_file()] == []


def test_the_front_page_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def columns(folder):
    """The metrics in a run's progress.csv."""
    with open(folder / "progress.csv", encoding="utf-8", newline="") as file:
        return set(next(csv.reader(file))) - {"iteration"}


def defined(text):
    """The names in the first column of a text's tables."""
    cells = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(.*?)`", cell)}


def test_every_tag_is_defined_and_every_definition_is_logged(tiny):
    """Of runs with unstable physics and by TRPO, and of training and an evaluation with success by class."""
    ones = np.ones((2, 3, 2))
    vectors = np.ones((2, 3, 2, 1), np.float32)
    episodes = Episodes(vectors, vectors, ones, ones, {"success": ones})
    classes = [{"env_name": "<class>"}, {"env_name": "other"}]
    tags = columns(tiny.run("cheetah"))
    tags |= {tag for tag in columns(tiny.run("navigation")) if tag.startswith("trpo/")}
    tags |= set(metrics.evaluation(Evaluated(classes, (Summary.of(episodes),), 1.0)))
    tags |= set(metrics.training([Summary.of(episodes)] * 2, "trpo", {}, {"sampling": 1.0}, Counters()))
    tags = {re.sub(r" \d+$", " <k>", tag) for tag in tags if "other" not in tag}
    assert defined(PAGES["docs/metrics.md"]) == tags


def test_every_curve_of_the_gates_is_defined(tiny):
    tags = columns(tiny.run("navigation")) - columns(tiny.run("plain"))
    section = PAGES["docs/figures.md"].partition("\n## gates\n")[2].partition("\n## ")[0]
    assert {tag.rpartition("/")[2] for tag in tags} == defined(section)


def test_the_library_page_runs(monkeypatch):
    """Its first block of Python, from the repository's root."""
    monkeypatch.chdir(ROOT)
    names = {}
    exec(code_blocks("python", "docs/library.md")[0], names)
    assert names["adapted"].returns.shape == (3, 20) and names["action"].shape == (2,)


def test_the_sweep_of_the_library_page_runs(monkeypatch, tmp_path):
    """Two trials of one iteration; Optuna itself is no requirement."""
    values = []

    class Trial:
        number = property(lambda self: len(values))
        suggest_float = staticmethod(lambda name, low, high, log: low)
        suggest_categorical = staticmethod(lambda name, choices: choices[0])

    class Study:
        def optimize(self, objective, n_trials):
            values.extend([objective(Trial()), objective(Trial())])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", types.SimpleNamespace(create_study=lambda direction: Study()))
    _, sweep, reading = code_blocks("python", "docs/library.md")
    tiny = "--num-batches 1 --meta-batch-size 2 --fast-batch-size 2 --test-batch-size 1 --num-workers 0"
    exec(sweep.replace("--num-batches 100", tiny), {"__name__": "__main__"})
    names = {}
    exec(reading, names)
    found = names["curves"]["running_returns/after_update"]
    assert len(values) == 2 and found.tolist() == values
    assert names["options"]["fast_lr"].tolist() == [0.05, 0.05]


@pytest.mark.parametrize("name", [name for name in envs.known() if not name.startswith(("ML", "Ant"))] + ["AntPos-v0"])
def test_the_keys_of_every_task_are_documented(name):
    file = ROOT / "rl/envs/ctgraph/ctgraph_d2.json" if "CTgraph" in name else None
    (task,) = envs.make(name, 1, **envs.options(name, file)).sample_tasks(1, "train", np.random.default_rng(0))
    assert [key for key in task if f'"{key}": ' not in PAGES["docs/environments.md"]] == []


def test_the_demo_is_the_command_of_2d_navigation():
    """`make demo` trains with it but for the number of iterations."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (options,) = re.findall(r"^NAVIGATION := (.*)$", makefile, re.MULTILINE)
    command = " ".join(training_command("2DNavigation-v0"))
    assert options.split() == command.replace("--num-batches 501 ", "").split()
    assert "$(NAVIGATION) --num-batches 20 " in makefile

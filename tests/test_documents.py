"""What the documents say exists: options, tags, files."""

import re

import numpy as np
import pytest

from rl import plot
from rl import test as evaluation_program
from rl.algorithm.metalearner import StepReport
from rl.config import make_parser
from rl.evaluation.evaluate import Evaluated
from rl.experiment.logger import Logger
from rl.experiment.state import Counters
from rl.sampling.episodes import Episodes
from rl.sampling.rollout import Phases
from tests.support.helpers import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = ROOT / "README.md"


def flags(text):
    """All long options in a text."""
    return set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text))


@pytest.fixture
def known_flags(capsys):
    """What main.py, test.py and plot.py take."""
    with pytest.raises(SystemExit):
        evaluation_program.parse(["--help"])
    for command in ("curves", "adaptation", "trajectories", "representation", "gates"):
        with pytest.raises(SystemExit):
            plot.parse([command, "--help"])
    return flags(make_parser().format_help()) | flags(capsys.readouterr().out)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_named_in_documents_exist(path, known_flags):
    text = path.read_text(encoding="utf-8")
    # The only options of other programs.
    for other in ("ruff format --check", "tests.conformance --replay", "bench.py --scaling", "^snakemake .*$"):
        text = re.sub(other, "", text, flags=re.MULTILINE)
    assert flags(text) <= known_flags


def test_some_options_are_named():
    """The search above finds what it should."""
    assert {"--fast-lr", "--make_deterministic"} == flags("`--fast-lr`, --make_deterministic and em--dash, ---")
    assert len(flags(README.read_text(encoding="utf-8"))) > 20


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)(.*?)\)", text):
        file, _, heading = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, f"{path.name}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_documents_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:rl|tests|docs|benchmarks)/[\w./]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_map_names_every_module_but_environments():
    text = README.read_text(encoding="utf-8").partition("## Map")[2]
    modules = [*(ROOT / "rl").glob("*.py"), *(ROOT / "rl" / "policies").glob("*.py")]
    names = {f"{path.relative_to(ROOT)}" for path in modules if path.name != "__init__.py"}
    assert names - set(re.findall(r"[\w/]+\.py", text)) == set()


@pytest.fixture
def logged_tags(tmp_path, monkeypatch):
    """Every tag that a run of two evaluated updates writes, `<k>` for the number of updates."""
    tags = set()
    monkeypatch.setattr(Logger, "scalar", lambda logger, tag, value, iteration: tags.add(tag))
    ones = np.ones((2, 3, 2))
    told = {"success": ones, "unstable": ones}
    episodes = Episodes(np.ones((2, 3, 2, 1), np.float32), np.ones((2, 3, 2, 1), np.float32), ones, ones, told)
    report = StepReport(*[1.0 for _ in StepReport._fields])
    logger = Logger(tmp_path)
    phases = Phases(episodes=(episodes, episodes), inner_losses=np.zeros((1, 2)), ridge_retries=0)
    logger.training(0, phases, report, {"sampling": 1.0, "learning": 1.0}, Counters())
    logger.evaluation(0, Evaluated([{"env_name": "push-v3"}, {"env_name": "reach-v3"}], phases, 1.0))
    logger.close()
    assert {"evaluation_rew/avg_rew 0", "evaluation_rew/avg_rew 1"} <= tags
    tags = {re.sub(r"(push|reach)-v3", "<class>", tag) for tag in tags}
    return {re.sub(r" \d+$", " <k>", tag) for tag in tags}


def test_every_tag_is_defined_and_every_definition_is_logged(logged_tags):
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)) == logged_tags


def test_the_demo_is_the_readmes_first_command():
    """`make demo` trains with the 2D navigation command but for the number of iterations."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (options,) = re.findall(r"^NAVIGATION := (.*)$", makefile, re.MULTILINE)
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^python main.py (--env-name 2DNavigation-v0 .*)$", text, re.MULTILINE)
    assert options.split() == command.replace("--num-batches 501 ", "").split()
    assert "$(NAVIGATION) --num-batches 20 " in makefile

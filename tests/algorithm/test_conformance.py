"""Parity with the published algorithm, and that the check itself can fail."""

import subprocess
import sys

import numpy as np
import pytest

from rl.algorithm.chunks import Chunk
from rl.errors import UserError
from tests import conformance
from tests.support.devices import DEVICES
from tests.support.helpers import ROOT

GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.npz"))


def changed(tmp_path, **arrays):
    """A copy of a golden file with some arrays replaced, or left out where None stands."""
    content = dict(np.load(GOLDEN[0]))
    for name, value in arrays.items():
        name = name.replace("__", "/")
        if value is None:
            del content[name]
        else:
            content[name] = value
    path = tmp_path / "changed.npz"
    np.savez(path, **content)
    return str(path), content


@DEVICES
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_figures_agree_with_the_published_algorithm(path, device, capsys):
    assert conformance.main([str(path)], device) == 0
    assert len(GOLDEN) == 12
    report = capsys.readouterr().out
    for figure in ("task0/baseline_train", "surrogate_gradient", "kl_hessian_vector_product", "step_kl", "after_step/",
                   "6_iterations/step_kl", "6_iterations/after_step/"):  # fmt: skip
        assert f"  {figure}" in report
    assert "TOO LARGE" not in report


@pytest.mark.parametrize(
    "figure, factor", [("expected__surrogate_loss", 1 + 1e-8), ("expected__step_kl", 1 + 1e-3)], ids=["loss", "step"]
)
def test_a_figure_that_is_off_is_noticed(tmp_path, capsys, figure, factor):
    right = np.load(GOLDEN[0])[figure.replace("__", "/")]
    path, _ = changed(tmp_path, **{figure: right * factor})
    # A right file after a wrong one does not make it right.
    assert conformance.main([path, str(GOLDEN[1])]) == 1
    assert capsys.readouterr().out.count("TOO LARGE") == 1


def test_an_early_step_that_is_off_is_noticed_where_the_whole_step_is_limited_by_rounding(capsys, monkeypatch):
    evaluate = Chunk.evaluate

    def wrong(chunk, vector):
        loss, divergence = evaluate(chunk, vector)
        return loss, divergence * (1 + 1e-5)

    monkeypatch.setattr(Chunk, "evaluate", wrong)
    (path,) = (path for path in GOLDEN if path.stem == "normal-maml")
    assert conformance.main([str(path)]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "TOO LARGE" in line)
    assert line.split()[0] == "6_iterations/step_kl"


def test_a_figure_that_is_not_computed_is_noticed(tmp_path):
    path, _ = changed(tmp_path, expected__something_new=np.zeros(2))
    with pytest.raises(UserError, match="something_new"):
        conformance.main([path])


@pytest.mark.parametrize("lacking", ["config", "param__sigma", "task0__train__rewards", "input__hvp_vector"])
def test_a_file_that_lacks_something_is_bad_input(tmp_path, lacking):
    content = dict(np.load(next(path for path in GOLDEN if path.stem == "normal-cavia")))
    del content[lacking.replace("__", "/")]
    path = tmp_path / "lacking.npz"
    np.savez(path, **content)
    with pytest.raises(UserError, match=r"lacking.npz"):
        conformance.main([str(path)])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_of_another_kind_is_bad_input(tmp_path, content):
    path = tmp_path / "wrong.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"wrong.npz"):
        conformance.main([str(path)])


def test_a_missing_file_ends_the_command_with_status_2(tmp_path):
    command = [sys.executable, "-m", "tests.conformance", str(tmp_path / "none.npz")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "none.npz" in result.stderr


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("member", ["config", "expected__surrogate_loss"])
def test_pickles_are_refused(tmp_path, member):
    trap = tmp_path / "trapped"
    path, _ = changed(tmp_path, **{member: np.array([Payload(str(trap))], dtype=object)})
    with pytest.raises(UserError, match=r"changed.npz"):
        conformance.main([path])
    assert not trap.exists()


@pytest.mark.parametrize("options", [["--device", "abacus"], [], ["--replay", "one", "two"]], ids=str)
def test_bad_options_are_refused(options):
    """A GPU that is not there: test_device.py."""
    with pytest.raises(UserError) as caught:
        conformance.parse(options)
    assert "\n" not in str(caught.value)

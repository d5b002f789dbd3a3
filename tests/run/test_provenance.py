"""What a run says that it was made with."""

import platform
import subprocess

import torch

from rl.run import provenance


def test_what_a_run_was_made_with():
    found = provenance.provenance()
    assert found.keys() == {"versions", "git_commit", "processor", "gpu"}
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["python"] == platform.python_version()
    name, comma, instructions = found["processor"].rpartition(", ")
    assert name and comma and instructions == torch.backends.cpu.get_cpu_capability()


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    (tmp_path / "rl").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path.resolve())
    assert provenance.git_commit() is None


def test_the_checkout_of_another_project_around_the_code_is_none_of_it(monkeypatch, tmp_path):
    inside = tmp_path / "environment"
    (inside / "rl").mkdir(parents=True)
    (tmp_path / "theirs.py").touch()
    for words in (
        ["init", "-q"],
        ["add", "theirs.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "_ROOT", inside.resolve())
    assert provenance.git_commit() is None
    (tmp_path / "rl").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path.resolve())
    assert len(provenance.git_commit().removesuffix("+")) == 40


def test_the_processor_s_name_is_read_from_the_system_or_is_the_architecture(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Model: 7\nmodel name\t: Model: 7\n")
    monkeypatch.setattr(platform, "processor", lambda: "")
    for path, name in ((tmp_path / "cpuinfo", "Model: 7"), (tmp_path, platform.machine())):
        monkeypatch.setattr(provenance, "_CPUINFO", path)
        assert provenance.processor().startswith(f"{name}, ")


def test_only_what_is_recorded_and_differs_is_a_change():
    now = provenance.provenance()
    assert not list(provenance.changes(now)) and not list(provenance.changes({}))
    assert list(provenance.changes(now | {"versions": "none", "processor": "a Z80"})) == [
        f"the run began on a Z80, this is {now['processor']}"
    ]
    (line,) = provenance.changes(now | {"versions": now["versions"] | {"torch": "0.1"}})
    assert line == f"the run began with torch 0.1, this is {torch.__version__}"


def test_a_gpu_counts_where_it_has_the_outer_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of 1999")
    began = provenance.provenance("auto")
    assert began["gpu"] == "a GPU of 1999" and provenance.provenance("cpu")["gpu"] is None
    (line,) = provenance.changes(began, "cpu")
    assert line == "the run began with its outer step on a GPU of 1999, this has it on the processor"
    (entry,) = provenance.continued(began, 3, "cpu")
    assert entry["iteration"] == 3 and entry["gpu"] is None
    (line,) = provenance.changes(began | {"continued": [entry]}, "cuda")
    assert line == "the run was continued with its outer step on the processor, this has it on a GPU of 1999"
    # Older runs do not say.
    del began["gpu"]
    assert not list(provenance.changes(began, "cpu"))

    def busy():
        raise torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable")

    # Told by one line where it is to be used.
    monkeypatch.setattr(torch.cuda, "get_device_name", busy)
    assert provenance.gpu("cuda") == "a GPU"


def test_a_change_is_one_from_what_the_run_was_last_continued_with():
    now = provenance.provenance()
    other = now | {"iteration": 3, "git_commit": "0123"}
    recorded = now | {"continued": [other]}
    (line,) = provenance.changes(recorded)
    assert line == f"the run was continued with commit 0123 of this code, this is {now['git_commit']}"
    assert not list(provenance.changes(other | {"continued": [other, now | {"iteration": 5}]}))
    for nonsense in (None, 3, {}, [], [3], [{}], [{"iteration": "3"}]):
        assert not list(provenance.changes(now | {"continued": nonsense}))

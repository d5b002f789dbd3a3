"""Several processes compute a run together: the same bytes, and one end for all."""

import itertools
import os
import pickle
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rl.algorithm.blocks import Blocks, ordered_sum, tasks_per_block
from rl.run.build import Setup
from rl.run.state import load_state

from rl import machine
from rl.algorithm.chunks import Options
from rl.config import Config, default_workers, parse_options
from rl.errors import UserError
from rl.evaluation.evaluate import Summary
from rl.main import main
from rl.ranks import RankLost, Ranks, part
from rl.run import agreement
from rl.sampling.episodes import Episodes
from rl.test import main as evaluate
from tests.support.helpers import PATIENCE, ROOT, becomes, made_up_episodes, only_run, random_params, small_policy
from tests.support.rank_programs import RankPrograms, torchrun
from tests.torture import Program, into, record, run_of

SMALL = [
    "--meta-batch-size", "6", "--fast-batch-size", "3", "--test-batch-size", "6", "--num-test-steps", "2",
    "--hidden-size", "8", "--tasks-per-group", "2", "--tasks-per-block", "2", "--num-workers", "1", "--test-freq", "2",
    "--neuromodulation", "--nm-gate", "soft", "--device", "cpu",
]  # fmt: skip
FILE = "--env-config-path, a file of SHA-256"
GRAPH = ["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", str(ROOT / "rl/envs/ctgraph/ctgraph_d2.json")]
SHORT = [*SMALL, *GRAPH, "--num-batches", "5"]
LONG = [*SMALL, *GRAPH, "--num-batches", "100000", "--test-freq", "100000", "--save-freq", "100000"]


def undisturbed(folder, line):
    """The `record` of a run of one process, this one, that nothing happens to."""
    assert main([*line, *into(folder)]) == 0
    return record(folder)


def state_of(folder, line):
    """The last state of the only run below a folder: (iteration, θ as bytes)."""
    _, saves = run_of(folder)
    given = [word for word in line if word not in ("--resume", "auto")]
    state = load_state(saves, Setup(parse_options(given)).policy)
    return state.iteration, {name: value.numpy().tobytes() for name, value in state.params.items()}


def started(folder, size, line=LONG, lines=1):
    """Ranks of a run that has printed so many lines."""
    programs = RankPrograms(folder, [[*line, *into(folder)]] * size)
    programs.programs[0].until_lines(lines)
    return programs


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run of one process."""
    folder = tmp_path_factory.mktemp("ranks") / "alone"
    undisturbed(folder, SHORT)
    return folder


def test_torchrun_starts_processes_that_compute_the_same_bytes(tmp_path, alone):
    command = [*torchrun("--standalone", "--nproc-per-node", "2"), "main.py", *SHORT, *into(tmp_path)]
    program = Program(tmp_path, command=command, GLOO_SOCKET_IFNAME="lo")
    assert program.finish() == 0, program.errors
    assert record(tmp_path) == record(alone) and state_of(tmp_path, SHORT) == state_of(alone, SHORT)


def test_other_ranks_write_nothing_and_choose_how_they_compute(tmp_path, alone):
    lines = [[*SHORT, *into(tmp_path / name), "--num-workers", number] for name, number in (("a", "1"), ("b", "2"))]
    ranks = RankPrograms(tmp_path, lines)
    assert ranks.finish() == [0, 0], ranks.told
    assert record(tmp_path / "a") == record(alone) and not (tmp_path / "b").exists()
    assert "iteration 4: " in ranks.programs[0].output and ranks.programs[1].output == ""
    assert not ranks.told


@pytest.mark.slow
def test_maml_too(tmp_path):
    line = [*SMALL, "--maml", "--num-batches", "2"]
    ranks = RankPrograms(tmp_path / "two", [[*line, *into(tmp_path / "two")]] * 2)
    assert ranks.finish() == [0, 0], ranks.told
    assert record(tmp_path / "two") == undisturbed(tmp_path / "alone", line)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_three_ranks_too(tmp_path, alone, workers):
    ranks = RankPrograms(tmp_path, [[*SHORT, *into(tmp_path), "--num-workers", workers]] * 3)
    assert ranks.finish() == [0, 0, 0], ranks.told
    assert record(tmp_path) == record(alone)


@pytest.mark.slow
def test_a_job_whose_ranks_are_killed_is_started_again_and_ends_with_the_same_bytes(tmp_path):
    line = [*SMALL, *GRAPH, "--num-batches", "60"]
    expected = undisturbed(tmp_path / "alone", line)
    rng, folder = np.random.default_rng(0), tmp_path / "three"
    folder.mkdir()
    # No --standalone, which starts nothing again.
    options = ("--nnodes", "1", "--nproc-per-node", "3", "--max-restarts", "100", "--rdzv-backend", "c10d")
    command = [*torchrun(*options, "--rdzv-endpoint", "127.0.0.1:0"), "main.py", *line, *into(folder)]
    program = Program(folder, command=[*command, "--resume", "auto"], GLOO_SOCKET_IFNAME="lo")
    for _ in range(6):
        program.until_lines(program.output.count("\n") + int(rng.integers(2, 12)))
        ranks = ranks_of(program)
        if ranks:
            os.kill(int(rng.choice(ranks)), signal.SIGKILL)
            assert becomes(lambda before=ranks: not set(before) & set(ranks_of(program)))
    assert program.finish() == 0, program.errors
    assert record(folder) == expected
    assert program.output.count("resumed at iteration") >= 1


def ranks_of(program):
    """The process ids of the ranks that torchrun has started: its children."""
    try:
        children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
    except OSError:
        return []
    return [pid for pid in map(int, children) if b"main.py" in command(pid)]


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_an_evaluation_is_shared_out_and_its_files_are_the_same(tmp_path, tiny):
    config = tiny.run("navigation") / "config.json"
    policy = only_run(tiny.folder / "navigation" / "saves") / "policy-1.pt"
    line = [str(config), str(policy), "--num-workers", "1", "--modulation", "swapped", "--logdir"]
    folders = [tmp_path / name for name in ("alone", "two")]
    assert evaluate([*line, str(folders[0])]) == 0
    ranks = RankPrograms(tmp_path, [[*line, str(folders[1])]] * 2, "test.py")
    assert ranks.finish() == [0, 0], ranks.told
    alone, two = map(only_run, folders)
    names = {path.name for path in alone.iterdir() if not path.name.startswith("events")}
    assert names == {path.name for path in two.iterdir() if not path.name.startswith("events")}
    assert {"rewards.npy", "results.json", "episodes.npz", "contexts.npy", "tasks.json"} <= names
    for name in names - {"config.json", "adaptation.png", "adaptation.svg"}:
        assert content(alone / name) == content(two / name), name


def content(path):
    """A file's bytes; of an archive, which holds times of day, those of its arrays."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


@pytest.mark.parametrize(
    "changes, words",
    [
        ([["--meta-batch-size", "2"]] * 2, "2 processes for 1 block of 2 tasks"),
        pytest.param([["--fast-lr", "x"]] * 2, "argument --fast-lr: invalid float value", marks=pytest.mark.slow),
        pytest.param(
            [["--device", "cuda"]] * 2,
            "--device cuda: no CUDA device is available",
            marks=[pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")],
        ),
        ([[], ["--fast-lr", "0.5"]], r"rank 1 on .* differs from rank 0: --fast-lr 0.5, rank 0 has 1.0"),
        ([[], ["--env-config-path", "other.json"]], r"rank 1 on .* differs from rank 0: --env-config-path, a file of "),
    ],
    ids=["more ranks than blocks", "a bad option", "no GPU", "other options", "another file"],
)
def test_bad_input_is_told_once_and_ends_all(tmp_path, changes, words):
    (tmp_path / "other.json").write_text("{}")
    changes = [[str(tmp_path / word) if word.endswith(".json") else word for word in change] for change in changes]
    ranks = RankPrograms(tmp_path, [[*SHORT, *into(tmp_path), *change] for change in changes])
    assert ranks.finish() == [2, 2]
    (line,) = ranks.told
    assert re.match(f"main.py: {words}", line)
    assert not (tmp_path / "logs").exists()


def test_other_code_packages_and_environments_are_told_by_name():
    class Two:
        """Rank 0 of two, the other one with facts of its own."""

        def __init__(self, theirs):
            self.theirs = theirs

        def gather(self, value):
            return [value, ("there", value[1] | self.theirs)]

    assert agreement.of_environment("no.such.module:Id") == {"no.such.module of SHA-256": "none"}
    assert agreement.of_options({"env_config_path": "/not/here.json"}, None)[FILE] == agreement.UNKNOWN
    facts = agreement.of_code() | agreement.of_environment("tests.support.user_environments:Seek-v0")
    agreement.compare(Two({FILE: agreement.UNKNOWN}), {FILE: "abc"})
    agreement.compare(Two({}), facts)
    for theirs, words in (
        ({"numpy": "1.0"}, f"rank 1 on there differs from rank 0: numpy 1.0, rank 0 has {np.__version__}"),
        ({"code of SHA-256": "abc"}, "differs from rank 0: code of SHA-256 abc, rank 0 has "),
        (
            {"tests.support.user_environments of SHA-256": "abc"},
            "differs from rank 0: tests.support.user_environments of SHA-256 abc, rank 0 has ",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            agreement.compare(Two(theirs), facts)


def test_an_environment_in_the_folder_one_stands_in_is_found_by_a_rank_that_has_imported_nothing(tmp_path, monkeypatch):
    (tmp_path / "of_my_own.py").write_bytes(b"import nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = agreement.of_environment("of_my_own:Id-v0")
    assert found == {"of_my_own of SHA-256": agreement.digest(b"import nothing")}


def test_a_run_that_lies_on_another_machine_is_not_begun_anew(tmp_path, alone):
    lines = [[*SHORT, *into(folder), "--resume", "auto"] for folder in (tmp_path / "elsewhere", alone)]
    ranks = RankPrograms(tmp_path, lines)
    assert ranks.finish() == [2, 2]
    (line,) = ranks.told
    assert line.startswith("main.py: --resume auto: the run to go on with, ") and "which is rank 1, and rank 0" in line
    assert not (tmp_path / "elsewhere").exists()


def test_a_rank_that_is_killed_ends_the_other_and_loses_one_iteration_at_most(tmp_path):
    folder, line = tmp_path / "two", [*SHORT, "--num-batches", "25", "--test-freq", "99"]
    ranks = started(folder, 2, line, lines=4)
    ranks.programs[1].process.kill()
    assert ranks.finish() == [1, -signal.SIGKILL]
    (told,) = ranks.told
    assert told.startswith("main.py: rank 0 has lost the others: ")
    (again,) = RankPrograms(folder, [[*line, *into(folder), "--resume", "auto"]]).programs
    assert again.finish() == 0, again.errors
    done = ranks.programs[0].output.count("\niteration ")
    assert f"resumed at iteration {done}\n" in again.output
    assert record(folder) == undisturbed(tmp_path / "alone", line)


@pytest.mark.parametrize("struck", [(0,), (1,), pytest.param((0, 1), marks=pytest.mark.slow)])
def test_a_signal_to_any_rank_ends_all_with_its_status_and_one_message(tmp_path, struck):
    ranks = started(tmp_path, 2, lines=3)
    for rank in struck:
        ranks.programs[rank].process.send_signal(signal.SIGINT)
    assert ranks.finish() == [130, 130]
    assert ranks.told == ["main.py: interrupted (SIGINT)"]
    advice = [line for line in ranks.programs[0].errors.splitlines() if line.startswith("resume with: ")]
    assert advice and advice[0].startswith("resume with: torchrun --standalone --nproc-per-node 2 main.py --resume ")


def test_so_does_a_folder_that_is_gone(tmp_path):
    ranks = started(tmp_path, 2, lines=3)
    logs, _ = run_of(tmp_path)
    (logs / "config.json").unlink()
    assert ranks.finish() == [1, 1]
    (line,) = ranks.told
    assert line.startswith(f"main.py: {logs / 'config.json'}: gone")


@pytest.mark.slow
def test_so_does_an_exception_of_the_environment(tmp_path):
    line = [*SMALL, "--env-name", "tests.support.broken_env:Obstinate-v0", "--num-batches", "3"]
    ranks = RankPrograms(tmp_path, [[*line, *into(tmp_path)]] * 2, environment={"OBSTINATE_RAISES": "of no use"})
    assert ranks.finish() == [1, 1]
    told = [words for words in ranks.told if words.startswith("main.py: ")]
    assert len(told) == 1 and "ArithmeticError: of no use" in told[0]


def on_gpus(rank, monkeypatch, **messages):
    """One rank of two whose vectors have a group of their own, as with NCCL: (the rank, what it does in order)."""
    ranks, done = Ranks({"RANK": str(rank), "WORLD_SIZE": "2"}), []
    noted = {name: lambda *_, name=name, **__: done.append(name) for name in ("send", "recv")}
    ranks._vectors = "vectors"
    ranks._dist = SimpleNamespace(
        isend="isend", irecv="irecv", DistError=torch.distributed.DistError, P2POp=lambda *given: given,
        batch_isend_irecv=lambda batch: done.append(batch) or [], broadcast=lambda *_: None, **noted | messages,
    )  # fmt: skip
    ranks._settle = lambda: done.append("settle")
    ranks._aside = lambda operation: operation()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return ranks, done


def test_vectors_go_between_gpus_once_all_are_computed(monkeypatch):
    rows = torch.ones(1, 3)
    sender, done = on_gpus(1, monkeypatch)
    assert sender.gather_rows(rows, None) is None
    assert done == ["settle", "send", [("isend", rows, 0, "vectors")], "settle"]
    receiver, done = on_gpus(0, monkeypatch)
    assert receiver.gather_rows(rows, [1, 1]).shape == (2, 3) and receiver.received == 12
    assert done[:2] == ["settle", "recv"] and done[2][0][::2] == ("irecv", 1) and done[3:] == ["settle"]


@pytest.mark.parametrize("message", ["broadcast", "gather_rows"])
def test_a_rank_that_died_is_noticed_before_vectors_go_between_gpus(monkeypatch, message):
    """NCCL would wait for it."""

    def gone(*_):
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1. This is")

    ranks, done = on_gpus(0, monkeypatch, recv=gone)
    arguments = {"broadcast": (None, torch.ones(3)), "gather_rows": (torch.ones(1, 3), [1, 1])}[message]
    with pytest.raises(RankLost, match=r"^rank 0 has lost the others: Connection closed by peer \[127.0.0.1\]:1$"):
        getattr(ranks, message)(*arguments)
    assert done == ["settle"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.distributed.DistBackendError("NCCL error in: NCCLUtils.cpp:94\nCuda failure 2 'out of memory'"),
        RuntimeError("Trying to create tensor with negative dimension -1: [-1]"),
    ],
    ids=["memory", "CUDA", "NCCL's memory", "a mistake"],
)
def test_what_is_no_loss_of_ranks_keeps_its_own_words(monkeypatch, error):
    def fail(*_):
        raise error

    ranks, _ = on_gpus(1, monkeypatch, send=fail)
    with pytest.raises(RuntimeError) as raised:
        ranks.gather_rows(torch.ones(1, 3), None)
    assert raised.value is error


@pytest.mark.parametrize("count, size", [(8, 1), (8, 3), (3, 3), (1, 4), (7, 2)])
def test_shares_are_all_there_is_in_order(count, size):
    bounds = [part(count, rank, size) for rank in range(size)]
    assert bounds[0][0] == 0 and bounds[-1][1] == count
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    # Rank 0, which draws what the gates do, has some whenever there are any.
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)


def test_a_block_is_worth_its_work():
    # 40 tasks in 8 groups of 5; 4000 rows × 100,000 weights a task are worth a block each, and so many there are not.
    assert tasks_per_block(40, 5, 4000, 100_000) == 5
    # 40 · 30 · 100,000 = 1.2e8: one block of 1e8; twice the weights: two blocks of four groups.
    assert tasks_per_block(40, 5, 30, 100_000) == 40
    assert tasks_per_block(40, 5, 30, 200_000) == 20
    # Whole groups, the last one smaller.
    assert tasks_per_block(7, 3, 4000, 100_000) == 3


def test_blocks_are_sums_over_their_tasks():
    policy = small_policy("normal", "soft")
    vector = torch.cat([value.reshape(-1) for value in random_params(policy).values()])
    before, after = (made_up_episodes(policy, num_tasks=5, seed=seed) for seed in (0, 1))
    options = Options(fast_lr=0.3, gamma=0.9, gae_lambda=0.95)
    blocks = Blocks(policy, options, size=2, dtype=torch.float64, threads=1)
    blocks.load(before, after)
    rows = [blocks.linearize(vector), blocks.product(vector), blocks.evaluate(vector + 0.01)]
    assert [len(each) for each in rows] == [3, 3, 3]
    # What another process computes of two of the blocks, or of the third, has the same bytes.
    for first, last, which in ((0, 4, slice(0, 2)), (4, 5, slice(2, 3))):
        alone = Blocks(policy, options, size=2, dtype=torch.float64, threads=2)
        alone.load(before.tasks(first, last), after.tasks(first, last))
        for every, own in zip(
            rows, (alone.linearize(vector), alone.product(vector), alone.evaluate(vector + 0.01)), strict=True
        ):
            assert torch.equal(every[which], own)
    assert torch.equal(ordered_sum(rows[1]), rows[1][0] + rows[1][1] + rows[1][2])


def test_summaries_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    ones = np.ones((4, 3, 2), np.float32)
    ones[:, 2, 1] = 0
    actions = rng.normal(size=(4, 3, 2, 2)).astype(np.float32) * ones[..., None]
    infos = {"success": rng.random((4, 3, 2)) < 0.5, "unstable": rng.random((4, 3, 2)) < 0.5}
    whole = Episodes(ones[..., None], actions, rng.normal(size=(4, 3, 2)), ones, infos)
    joined = Summary.concatenate([Summary.of(whole.tasks(0, 1)), Summary.of(whole.tasks(1, 4))])
    expected = Summary.of(whole)
    for ours, theirs in zip(joined[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert joined.told.keys() == expected.told.keys() == {"any", "final", "unstable"}
    for name, values in joined.told.items():
        np.testing.assert_array_equal(values, expected.told[name])
    assert expected.steps == 4 * 5
    assert expected.mean_action == pytest.approx(actions.sum(dtype=np.float64) / (4 * 5 * 2), rel=1e-12)
    # A class of tasks that tells no success had none.
    silent = Episodes(ones[..., None], actions, rng.normal(size=(4, 3, 2)), ones)
    both = Summary.concatenate([Summary.of(silent), expected])
    assert not both.success["any"][:4].any() and (both.success["any"][4:] == expected.success["any"]).all()


def test_the_machine_is_shared_among_its_ranks(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_workers() == 3
    alone, two = (
        Setup(Config(device="cpu"), ranks=Ranks(variables)).learner().blocks
        for variables in ({}, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    )
    assert (alone.pool._max_workers, two.pool._max_workers) == (6, 3)
    asked = Setup(Config(device="cpu", learner_threads=4), ranks=Ranks({})).learner().blocks
    assert asked.pool._max_workers == 4
    assert two.memory == alone.memory / 2


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: expected a whole number of at least 1"),
        ({"RANK": "x"}, "RANK=x: expected a whole number of at least 0"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0: expected a whole number of at least 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2: expected less than WORLD_SIZE, which is 2"),
    ],
)
def test_bad_variables_of_torchrun_are_refused(variables, words):
    with pytest.raises(UserError, match=f"^{words}, or no such variable$"):
        Ranks(variables).join()


def test_programs_tell_of_them_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert main([]) == evaluate([]) == 2
    complaint = "WORLD_SIZE=x: expected a whole number of at least 1, or no such variable\n"
    assert capsys.readouterr().err == f"main.py: {complaint}test.py: {complaint}"


@pytest.mark.parametrize("value, workers", [("", 6), ("x", 6), ("0", 6), ("-2", 6), ("7", 1)])
def test_importing_the_options_outlives_any_variable(monkeypatch, value, workers):
    """The default is computed then, in plot.py, too."""
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    assert default_workers() == workers


def test_ranks_agree_whatever_earlier_ones_left_in_the_store():
    store = torch.distributed.HashStore()
    store.set("proposal", pickle.dumps(("stale", [b"one", b"two"])))
    for rank in range(3):
        store.set(f"token/{rank}", "stale")
    ranks = [Ranks({"RANK": str(rank), "WORLD_SIZE": "3"}) for rank in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(rank._agreed, store) for rank in ranks]
        names = {each.result(PATIENCE) for each in found}
    assert len(names) == 1 and "stale" not in names


def test_an_estimate_is_of_the_largest_share():
    config = Config(meta_batch_size=7, test_batch_size=8, tasks_per_group=2, tasks_per_block=4, device="cpu")
    # Two blocks, of 4 and 3 tasks; four groups of 2, two for each rank.
    two = Setup(config, ranks=Ranks({"WORLD_SIZE": "2"})).largest_share()
    assert (two.meta_batch_size, two.test_batch_size) == (4, 4)
    alone = Setup(config).largest_share()
    assert (alone.meta_batch_size, alone.test_batch_size) == (7, 8)


@pytest.mark.slow
def test_a_last_smaller_block_is_computed_alike(tmp_path):
    line = [*SMALL, *GRAPH, "--num-batches", "2", "--meta-batch-size", "7", "--tasks-per-block", "4"]
    ranks = RankPrograms(tmp_path / "two", [[*line, *into(tmp_path / "two")]] * 2)
    assert ranks.finish() == [0, 0], ranks.told
    assert record(tmp_path / "two") == undisturbed(tmp_path / "alone", line)


def test_a_port_in_use_is_told(tmp_path):
    programs = RankPrograms(tmp_path, [])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(programs.store.port)}
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    program = Program(tmp_path, command=[sys.executable, "main.py", *SHORT, *into(tmp_path)], **variables, **place)
    assert program.finish() == 1
    (line,) = program.errors.splitlines()
    assert line.startswith(f"main.py: rank 0 of 2 cannot meet the others at 127.0.0.1:{programs.store.port}: ")

"""Several processes compute a run together: the same bytes, and one end for all."""

import hashlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl import machine
from rl.config import Config, default_workers, parse_options
from rl.errors import UserError
from rl.evaluation.evaluate import Summary
from rl.main import program as main
from rl.ranks import RankLost, Ranks
from rl.run import agreement
from rl.run.checkpoint import load_state
from rl.run.folders import Folders
from rl.run.setup import Setup
from rl.sampling.episodes import Episodes
from rl.test import main as evaluate
from tests.support.forked import Forked
from tests.support.helpers import ROOT, becomes, only_run
from tests.support.rank_programs import RankPrograms, torchrun
from tests.torture import Program, into, record, run_of

SMALL = [
    "--meta-batch-size", "6", "--fast-batch-size", "3",
    "--num-test-tasks", "6", "--test-batch-size", "3", "--num-test-steps", "2",
    "--hidden-size", "8", "--tasks-per-group", "2", "--tasks-per-block", "2", "--num-workers", "0", "--test-freq", "2",
    "--neuromodulation", "--nm-gate", "soft", "--device", "cpu",
]  # fmt: skip
GRAPH = ["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", str(ROOT / "rl/envs/ctgraph/ctgraph_d2.json")]
SHORT = [*SMALL, *GRAPH, "--num-batches", "5"]
LONG = [*SMALL, *GRAPH, "--num-batches", "100000", "--test-freq", "100000", "--save-freq", "100000"]
LOST = re.compile(r"main\.py: rank \d of \d has lost the others: \S")


def undisturbed(folder, line):
    """The `record` of a run of one process, this one, that nothing happens to."""
    assert main([*line, *into(folder)]) == 0
    return record(folder)


def state_of(folder, line):
    """The last state of the only run below a folder: (iteration, options, θ as bytes)."""
    _, saves = run_of(folder)
    setup = Setup(parse_options(line))
    state = load_state(saves, setup.policy, setup.outer_step)
    assert state.options  # which a changed config.json is held against
    return state.iteration, state.options, {name: value.numpy().tobytes() for name, value in state.params.items()}


def started(folder, size, line=LONG, lines=1):
    """Ranks of a run that has printed so many lines."""
    ranks = RankPrograms(folder, [[*line, *into(folder)]] * size)
    ranks.programs[0].until_lines(lines)
    return ranks


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
    lines = [[*SHORT, *into(tmp_path / name), "--learner-threads", number] for name, number in (("a", "1"), ("b", "2"))]
    ranks = RankPrograms(tmp_path, lines)
    assert ranks.finish() == [0, 0], ranks.complaints
    assert record(tmp_path / "a") == record(alone) and not (tmp_path / "b").exists()
    assert "iteration 4: " in ranks.programs[0].output and ranks.programs[1].output == ""
    assert ranks.complaints == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, line",
    [
        (2, [*SMALL, "--maml", "--num-batches", "2"]),
        (3, SHORT),
        # The last block is smaller.
        (2, [*SMALL, *GRAPH, "--num-batches", "2", "--meta-batch-size", "7", "--tasks-per-block", "4"]),
        (2, [*SMALL, *GRAPH, "--num-batches", "2", "--outer-step", "ppo", "--inner-objective", "ratio"]),
        (
            2,
            [
                *SMALL,
                *GRAPH,
                "--num-batches",
                "2",
                "--pre-update-return",
                "1",
                "--exploration-credit",
                "1",
                "--entropy-bonus",
                "0.01",
                "--explore",
                "0.5",
            ],
        ),
    ],
    ids=["MAML", "three", "unequal blocks", "ProMP", "credit"],
)
def test_other_shares_too(tmp_path, size, line):
    ranks = RankPrograms(tmp_path / "ranks", [[*line, *into(tmp_path / "ranks")]] * size)
    assert ranks.finish() == [0] * size, ranks.complaints
    assert record(tmp_path / "ranks") == undisturbed(tmp_path / "alone", line)


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
    config = tiny.run("own") / "config.json"
    policy = only_run(tiny.folder / "own" / "saves") / "policy-1.pt"
    line = [str(config), str(policy), "--num-workers", "0", "--context", "swapped", "--logdir"]
    folders = [tmp_path / name for name in ("alone", "two")]
    assert evaluate([*line, str(folders[0])]) == 0
    ranks = RankPrograms(tmp_path, [[*line, str(folders[1])]] * 2, "test")
    assert ranks.finish() == [0, 0], ranks.complaints
    alone, two = map(only_run, folders)
    names = {path.name for path in alone.iterdir() if not path.name.startswith("events")}
    assert names == {path.name for path in two.iterdir() if not path.name.startswith("events")}
    assert {"rewards.npy", "success_metric.npy", "results.json", "episodes.npz", "contexts.npy", "tasks.json"} <= names
    for name in names - {"config.json", "adaptation.png"}:
        assert content(alone / name) == content(two / name), name


def content(path):
    """A file's bytes; of an archive, which holds times of day, those of its arrays, of a picture nothing."""
    if path.suffix in (".pdf", ".svg"):
        return None
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


# --- what ranks must agree on ---


@pytest.mark.parametrize("named", ["--fast-lr", "--env-config-path"])
def test_ranks_that_differ_are_refused_by_name(tmp_path, named):
    """Another option, or another file of the same name, which both could train on."""
    (tmp_path / "ctgraph_d2.json").write_text(Path(GRAPH[-1]).read_text() + "\n")
    other = {"--fast-lr": "0.5", "--env-config-path": str(tmp_path / "ctgraph_d2.json")}[named]
    ranks = RankPrograms(tmp_path, [[*SHORT, *into(tmp_path)], [*SHORT, *into(tmp_path), named, other]])
    assert ranks.finish() == [2, 2]
    for (line,) in ranks.complaints:
        assert re.match(rf"main\.py: rank 1 on .* differs from rank 0: {named} ", line), line
    assert not (tmp_path / "logs").exists()


class Two(Ranks):
    """Rank 0 of two, whose other one has some facts of its own."""

    def __init__(self, **theirs):
        super().__init__({"WORLD_SIZE": "2"})
        self.theirs = theirs

    def _all_bytes(self, payload, only_to_rank_0=False):
        _, facts = json.loads(payload)
        return [payload, json.dumps(["there", facts | self.theirs]).encode()]


@pytest.mark.parametrize("name", ["numpy", "code of SHA-256", "tests.support.user_environments of SHA-256"])
def test_other_code_packages_and_environments_are_named(tmp_path, name):
    config = Config(env_name="tests.support.user_environments:Seek-v0")
    facts = agreement.facts(config)
    Two().agree(facts)
    with pytest.raises(UserError, match=r"^rank 1 on there differs from rank 0: ") as caught:
        Two(**{name: "other"}).agree(facts)
    assert str(caught.value).endswith(f": {name} other, rank 0 has {facts[name]}")


def test_the_code_and_the_run_to_resume_are_among_the_facts(tmp_path, monkeypatch, alone):
    """An environment's module is found in the folder one stands in, by a rank that has imported nothing."""
    (tmp_path / "of_my_own.py").write_bytes(b"import nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = Config(env_name="of_my_own:Id-v0")
    begun, resumed = agreement.facts(config), agreement.facts(config, Folders(*run_of(alone)))
    digest = hashlib.sha256(b"import nothing").hexdigest()[:12]
    assert begun["of_my_own of SHA-256"] == digest
    assert set(resumed.items()) - set(begun.items()) == {("--resume", run_of(alone)[0].name)}
    read = agreement.facts(config, files={"the policy": tmp_path / "of_my_own.py", "--tasks": None})
    assert set(read.items()) - set(begun.items()) == {("the policy", f"a file of SHA-256 {digest}")}
    assert agreement.of_environment("no.such.module:Id") == {"no.such.module of SHA-256": "none"}
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "code.py").write_text("1")
    monkeypatch.setattr(agreement, "PACKAGE", tmp_path / "rl")
    other = agreement.facts(config)
    assert {name for name in begun if begun[name] != other[name]} == {"code of SHA-256"}


# --- how ranks end ---


def ends(ranks, struck, status, line):
    """The ranks that something struck end so, each with one line; the others by having lost them."""
    statuses = ranks.finish()
    for rank, (found, complaints) in enumerate(zip(statuses, ranks.complaints, strict=True)):
        if rank in struck:
            assert found == status and (line is None or re.match(line, complaints[-1])), (found, complaints)
            assert len(complaints) == (line is not None), complaints
        else:
            assert found == 1 and len(complaints) == 1 and LOST.match(complaints[0]), (found, complaints)


@pytest.mark.parametrize(
    "line, struck",
    [([*SHORT, "--fast-lr", "x"], [1]), ([*SHORT, "--tasks-per-block", "6"], [0, 1])],
    ids=["a bad option of one", "more ranks than blocks"],
)  # fmt: skip
def test_bad_input_ends_all_and_nothing_is_written(tmp_path, line, struck):
    ranks = RankPrograms(tmp_path, [[*(line if rank in struck else SHORT), *into(tmp_path)] for rank in range(2)])
    ends(ranks, struck, 2, r"main\.py: (argument --fast-lr: |2 processes for 1 block of 6 tasks )")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_ends_the_others_and_loses_one_iteration_at_most(tmp_path, killed):
    folder, line = tmp_path / "two", [*SHORT, "--num-batches", "25", "--test-freq", "99"]
    ranks = started(folder, 2, line, lines=4)
    ranks.programs[killed].process.kill()
    ends(ranks, [killed], -signal.SIGKILL, None)
    done = ranks.programs[0].output.count("\niteration ")
    assert ("resume with: torchrun --standalone --nproc-per-node 2 main.py --resume " in ranks.programs[0].errors) == (
        killed != 0
    )
    (again,) = RankPrograms(folder, [[*line, *into(folder), "--resume", "auto"]]).programs
    assert again.finish() == 0, again.errors
    assert re.search(rf"resumed at iteration ({done}|{done + 1})\n", again.output)
    assert record(folder) == undisturbed(tmp_path / "alone", line)


@pytest.mark.parametrize(
    "struck, number", [([0], signal.SIGINT), ([1], signal.SIGTERM),
                       pytest.param([0, 1], signal.SIGINT, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_signal_to_any_rank_ends_all(tmp_path, struck, number):
    ranks = started(tmp_path, 2, lines=3)
    for rank in struck:
        ranks.programs[rank].process.send_signal(number)
    if len(struck) == 1:
        ends(ranks, struck, 128 + number, rf"main\.py: interrupted \({number.name}\)$")
    else:  # the signal, or the other's end, whichever came first
        assert set(ranks.finish()) <= {130, 1} and all(len(complaints) == 1 for complaints in ranks.complaints)
    advice = [line for line in ranks.programs[0].errors.splitlines() if line.startswith("resume with: ")]
    assert len(advice) == 1
    assert advice[0].startswith("resume with: torchrun --standalone --nproc-per-node 2 main.py --resume ")


@pytest.mark.slow
def test_a_folder_that_is_gone_ends_all(tmp_path):
    ranks = started(tmp_path, 2, lines=3)
    logs, _ = run_of(tmp_path)
    (logs / "config.json").unlink()
    ends(ranks, [0], 1, rf"main\.py: {re.escape(str(logs / 'config.json'))}: gone")


@pytest.mark.slow
def test_an_exception_of_the_environment_ends_all(tmp_path):
    line = [*SMALL, "--env-name", "tests.support.broken_env:Obstinate-v0", "--num-batches", "3"]
    ranks = RankPrograms(tmp_path, [[*line, *into(tmp_path)]] * 2, environment={"OBSTINATE_RAISES": "of no use"})
    assert ranks.finish() == [1, 1]
    for program in ranks.programs:
        first = next(line for line in program.errors.splitlines() if line.startswith("main.py: "))
        assert "ArithmeticError: of no use" in first or LOST.match(first)


def test_a_port_in_use_is_one_line(tmp_path):
    taken = RankPrograms(tmp_path, [])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.store.port)}
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    program = Forked(tmp_path, [*SHORT, *into(tmp_path)], **variables, **place)
    assert program.finish() == 1
    (line,) = program.errors.splitlines()
    assert line.startswith("main.py: rank 0 of 2 cannot meet the others: ")


# --- shares ---


@pytest.mark.parametrize("error, reason", [
    (RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1. This is"),
     "Connection closed by peer [127.0.0.1]:1"),
    (RuntimeError("first\nsecond"), "first"),
    (RuntimeError(), "RuntimeError"),
])  # fmt: skip
def test_an_error_of_the_network_is_one_line(error, reason):
    ranks = Ranks({"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(RankLost) as caught, ranks._naming_the_loss():
        raise error
    assert str(caught.value) == f"rank 1 of 2 has lost the others: {reason}" and caught.value.status == 1


@pytest.mark.parametrize("count, unit, size", [(8, 1, 1), (8, 1, 3), (3, 1, 3), (7, 2, 2), (1, 4, 4), (6, 4, 3)])
def test_shares_are_all_there_is_in_order_and_in_whole_units(count, unit, size):
    ranks = [Ranks({"RANK": str(rank), "WORLD_SIZE": str(size)}) for rank in range(size)]
    shares = [rank.share(count, unit) for rank in ranks]
    assert [task for share in shares for task in range(count)[share]] == list(range(count))
    assert all(share.start % unit == 0 for share in shares if share.start < share.stop)
    # Rank 0, which draws what the gates do, has some whenever there are any, and as many as any other.
    units = [-(-(share.stop - share.start) // unit) for share in shares]
    assert max(units) - min(units) <= 1 and units[0] == max(units)


def test_rows_are_added_one_by_one_whoever_has_them():
    rows = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    expected = (((rows[0] + rows[1]) + rows[2]) + rows[3]) + rows[4]
    assert torch.equal(Ranks({}).ordered_sum(rows), expected)

    class Three(Ranks):
        def _all_rows(self, own):
            return [rows[:2], rows[2:4], own]

    assert torch.equal(Three({"RANK": "2", "WORLD_SIZE": "3"}).ordered_sum(rows[4:]), expected)


def test_a_part_that_tells_no_success_had_none():
    """All else of joined summaries: the files of an evaluation, above."""
    ones = np.ones((4, 3, 2), np.float32)
    silent, solved = (Episodes(ones[..., None], ones, ones, ones, infos) for infos in ({}, {"success": ones > 0}))
    both = Summary.concatenate([Summary.of(silent), Summary.of(solved)])
    assert not both.success["any"][:4].any() and both.success["any"][4:].all()


def test_the_machine_is_shared_among_its_ranks(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_workers() == 3
    alone, two = (
        Setup(Config(device="cpu"), ranks=Ranks(variables)).learner().compute
        for variables in ({}, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    )
    assert (alone.pool._max_workers, two.pool._max_workers) == (6, 3)
    asked = Setup(Config(device="cpu", learner_threads=4), ranks=Ranks({})).learner().compute
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
    with pytest.raises(UserError, match=f"^{words}"):
        Ranks(variables)


def test_programs_tell_of_them_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert main([]) == evaluate(["config.json", "policy.pt"]) == 2
    complaint = "WORLD_SIZE=x: expected a whole number of at least 1, or no such variable\n"
    assert capsys.readouterr().err == f"main.py: {complaint}test.py: {complaint}"


@pytest.mark.parametrize("value, workers", [("", 6), ("x", 6), ("0", 6), ("-2", 6), ("7", 1)])
def test_importing_the_options_outlives_any_variable(monkeypatch, value, workers):
    """The default is computed then, in plot.py, too."""
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    assert default_workers() == workers


def test_an_estimate_is_of_the_largest_share():
    config = Config(meta_batch_size=7, num_test_tasks=8, tasks_per_group=2, tasks_per_block=4, device="cpu")
    # Two blocks, of 4 and 3 tasks; four groups of 2, two for each rank.
    two = Setup(config, ranks=Ranks({"WORLD_SIZE": "2"})).largest_share()
    assert (two.meta_batch_size, two.num_test_tasks) == (4, 4)
    alone = Setup(config).largest_share()
    assert (alone.meta_batch_size, alone.num_test_tasks) == (7, 8)

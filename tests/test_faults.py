"""What happens to a run at a chosen moment: each test's run is a process of its own that sabotages itself."""

import errno
import itertools
import json
import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from tensorboardX.event_file_writer import EventsWriter

from rl.main import program as main
from rl.run.console import Console
from rl.run.metrics import Progress
from rl.run.training_run import MAX_FLIGHT_RECORDS, MAX_REJECTED_IN_A_ROW
from rl.sampling.in_process import InProcessSampler
from tests import conformance
from tests.support.forked import FEW, run
from tests.torture import into, progress, record, run_of

NAVIGATION = [
    "--env-name", "2DNavigation-v0", "--meta-batch-size", "4", "--fast-batch-size", "3",
    "--num-test-tasks", "4", "--test-batch-size", "3",
    "--num-test-steps", "1", "--hidden-size", "8", "--test-freq", "99", "--tasks-per-group", "2",
]  # fmt: skip
# Every call by which a run changes what is on the disk.
WRITING = [
    (os, "replace"), (os, "fsync"), (os, "truncate"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_text"),
    (Path, "write_bytes"), (shutil, "copyfile"), (EventsWriter, "flush"),
]  # fmt: skip


class Faulty(gymnasium.Env):
    """The third of its tasks yields something bad in the third step of an episode.

    Args:
        observation, reward: what the bad step yields.
    """

    observation_space = Box(-9.0, 9.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, observation=0.0, reward=0.0):
        self.bad = np.full(2, observation, np.float32), reward

    def sample_tasks(self, num_tasks, split, rng):
        return [{"bad": number == 2} for number in range(num_tasks)]

    def set_tasks(self, tasks):
        self.task = tasks[0]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.task["bad"] and self.steps == 3:
            return *self.bad, False, False, {}
        return self.np_random.normal(size=2).astype(np.float32), float(action[0]), False, False, {}


for fault, options in {
    "NanObservation": {"observation": np.nan},
    "InfiniteReward": {"reward": np.inf},
    "HugeReward": {"reward": 1e300},
}.items():
    gymnasium.register(f"{fault}-v0", entry_point=Faulty, max_episode_steps=5, kwargs=options)


def before_writing(act, spared=()):
    """Have act(number, call, arguments) come before each call of `WRITING`."""
    numbers = itertools.count(1)

    def sabotaged(call):
        def instead(*arguments, **options):
            act(next(numbers), call, arguments)
            return call(*arguments, **options)

        return instead

    for owner, name in WRITING:
        if name not in spared:
            setattr(owner, name, sabotaged(getattr(owner, name)))


def kill_at(count):
    """SIGKILL at the `count`-th call of `WRITING`: half of what it writes is written, or it is not begun."""

    def kill(number, call, arguments):
        if number == count:
            if call.__name__ in ("write_bytes", "write_text"):
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    before_writing(kill)


def fill_at(count):
    """A disk that is full from the `count`-th call of `WRITING` on, and takes back what is removed."""

    def full(number, *_):
        if number >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before_writing(full, spared=("replace", "truncate", "unlink"))


def limit_files(size):
    """No file can grow beyond so many bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill_logs_at(count, owner, name, path_of):
    """A file of the logs has room for one more byte from the `count`-th time on that it is written to."""
    write, left = getattr(owner, name), count

    def limited(writer, *arguments):
        nonlocal left
        left -= 1
        if left == 0:
            limit_files(os.path.getsize(path_of(writer)) + 1)
        return write(writer, *arguments)

    setattr(owner, name, limited)


def path_of_progress(sink):
    return sink.path


def path_of_events(writer):
    return writer._file_name


def spoil_actions_of(task):
    """A task's actions after the inner update are infinite once they were sampled: the learner meets what the sampler
    did not. So are their log-probabilities, and their ratio is ∞/∞ on any processor.
    """
    sample = InProcessSampler.sample

    def spoiled(*arguments):
        rollouts = sample(*arguments)
        rollouts.episodes[-1].actions[task] = np.inf
        return rollouts

    InProcessSampler.sample = spoiled


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The record of a run of `FEW`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder, FEW)[0] == 0
    return record(folder)


def killed_while_writing(folder, step):
    """Kill a run at the first call that writes, its successor at the (1 + step)-th, …, until one comes through.

    Returns:
        how often a run was killed
    """
    kills = 0
    while True:
        status, output = run(folder, [*FEW, "--resume", "auto"], kill_at, 1 + step * kills)
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, output
        kills += 1


def test_a_run_killed_at_many_moments_of_writing_ends_with_the_same_bytes(tmp_path, undisturbed):
    assert killed_while_writing(tmp_path, 4) > 5
    assert record(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_run_killed_at_every_moment_of_writing_ends_with_the_same_bytes(tmp_path, undisturbed):
    assert killed_while_writing(tmp_path, 1) > 20
    assert record(tmp_path) == undisturbed
    # The first run may have written one of two configurations only; all later moments are moments of one run.
    folders = list((tmp_path / "logs").glob("*/*/*"))
    assert sum((folder / "config.json").exists() for folder in folders) == 1


def assert_told(status, output, *words):
    """Exit status 1, one line that says what happened, no traceback."""
    assert status == 1, output
    (told,) = [line for line in output.splitlines() if line.startswith("main.py: ")]
    assert all(word in told for word in words), told
    assert "Traceback" not in output and "Exception" not in output, output


def test_a_run_whose_disk_fills_up_at_many_moments_ends_with_the_same_bytes(tmp_path, undisturbed):
    for failures in range(100):
        status, output = run(tmp_path, [*FEW, "--resume", "auto"], fill_at, 1 + 6 * failures)
        if status == 0:
            break
        assert_told(status, output, "No space left on device")
    assert failures > 3
    assert record(tmp_path) == undisturbed


def test_a_full_disk_is_noticed_before_training(tmp_path):
    status, output = run(tmp_path, FEW, limit_files, 1000)
    assert_told(status, output, "File too large", str(tmp_path / "saves"), "state.pt")
    assert "iteration" not in output and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    "owner, name, path_of", [(Progress, "write", path_of_progress), (EventsWriter, "flush", path_of_events)]
)
def test_a_run_is_resumed_once_there_is_room_again(tmp_path, undisturbed, owner, name, path_of):
    # The third iteration's logs are half written.
    status, output = run(tmp_path, FEW, fill_logs_at, 3, owner, name, path_of)
    assert_told(status, output, "File too large", str(tmp_path / "logs"))
    assert "iteration 1:" in output and "iteration 2:" not in output and "resume with: python main.py" in output
    assert not list(tmp_path.rglob("*.tmp"))
    status, output = run(tmp_path, [*FEW, "--resume", "auto"])
    assert status == 0 and "resumed at iteration 2" in output
    assert record(tmp_path) == undisturbed


def remove_after(iteration, pattern):
    """What matches below the run's place is removed after an iteration."""

    def removing(console, number, *arguments):
        shown(console, number, *arguments)
        if number == iteration:
            for path in Path(sys.stdout.name).parent.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    shown, Console.iteration = Console.iteration, removing


@pytest.mark.parametrize("pattern", ["logs", "saves", "logs/*", "saves/*/*/*", "logs/*/*/*/progress.csv"])
def test_a_folder_that_is_deleted_is_noticed_at_the_next_write(tmp_path, pattern):
    status, output = run(tmp_path, FEW, remove_after, 1, pattern)
    one_file = pattern.endswith("progress.csv")
    assert_told(status, output, pattern.split("/")[0], "No such file" if one_file else "gone")
    assert "iteration 1:" in output and "iteration 2:" not in output
    assert ("resume with: " in output) == one_file
    # Nothing of it is made anew.
    assert not list(tmp_path.glob(pattern))


@pytest.mark.parametrize("fault, what", [("NanObservation", "observation"), ("InfiniteReward", "reward")])
def test_bad_numbers_of_an_environment_name_their_place(tmp_path, capsys, fault, what):
    name = f"tests.test_faults:{fault}-v0"
    assert main([*NAVIGATION, "--env-name", name, "--num-workers", "0", *into(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"{name}: FloatingPointError: {what} is not finite: task 2, episode 0, step 2" in told
    assert "resume with: " in told and "Traceback" in told


def test_an_update_that_overflows_is_no_fault_of_the_environment(tmp_path, capsys):
    line = [*NAVIGATION, "--maml", "--fast-lr", "1e30", "--num-workers", "0"]
    assert main([*line, *into(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "main.py: an inner update overflowed" in told and "--fast-lr" in told
    assert "Navigation-v0: " not in told and "Traceback" not in told


def test_a_reward_whose_square_overflows_does_no_harm(tmp_path):
    # Its task's advantages are 0; the others go on learning.
    line = [*NAVIGATION, "--env-name", "tests.test_faults:HugeReward-v0", "--num-batches", "3"]
    status, output = run(tmp_path, line)
    assert status == 0, output
    logs, saves = run_of(tmp_path)
    params = [torch.load(saves / f"policy-{iteration}.pt", weights_only=True) for iteration in (0, 2)]
    assert all(torch.isfinite(value).all() for value in params[1].values())
    assert progress(logs)["trpo/step_size"][2] > 0 and not torch.equal(params[0]["mu.weight"], params[1]["mu.weight"])


def test_steps_that_are_not_finite_change_nothing_and_end_the_run_after_ten(tmp_path, capsys):
    status, output = run(tmp_path, [*NAVIGATION, "--num-batches", "99"], spoil_actions_of, 2)
    assert_told(status, output, "10 outer steps in a row", "not finite")
    logs, saves = run_of(tmp_path)
    table = progress(logs)
    assert list(table["trpo/rejected_nonfinite"]) == list(range(1, MAX_REJECTED_IN_A_ROW + 1))
    assert not table["trpo/no_update"].any() and not table["trpo/step_size"].any()
    assert (saves / "policy-0.pt").read_bytes() == (saves / "policy-9.pt").read_bytes()
    flights = sorted(logs.glob("flight-*.npz"))
    assert [path.name for path in flights] == [f"flight-{i}.npz" for i in range(MAX_FLIGHT_RECORDS)]

    description = json.loads(str(np.load(flights[1])["description"]))
    assert description["stream"] == {"seed": 42, "iteration": 1, "phase": 0, "first_task": 0}
    assert conformance.replay(flights[1]) == 0
    told = capsys.readouterr().out
    figures = re.findall(r"task \d: inner loss (.*), surrogate (.*), gradient (.*), curvature product (.*)", told)
    finite = [np.isfinite([float(figure) for figure in task]).tolist() for task in figures]
    assert finite == [[True] * 4, [True] * 4, [True, False, False, False], [True] * 4]
    assert "'trpo/gradient_norm': nan" in told

    # Resumed, it goes on counting: no fourth record, and the reason again.
    status, output = run(tmp_path, ["--resume", str(logs)], spoil_actions_of, 2)
    assert_told(status, output, "10 outer steps in a row")
    assert len(list(logs.glob("flight-*.npz"))) == MAX_FLIGHT_RECORDS
    assert progress(logs)["trpo/rejected_nonfinite"][10] == 11


def test_a_flight_record_of_any_outer_step_and_number_of_updates_is_replayed(tmp_path, capsys):
    line = [*NAVIGATION, "--num-batches", "9", "--outer-step", "ppo", "--num-updates", "2"]
    run(tmp_path, line, spoil_actions_of, 2)
    logs, _ = run_of(tmp_path)
    flights = sorted(logs.glob("flight-*.npz"))
    assert len(flights) == MAX_FLIGHT_RECORDS and conformance.replay(flights[1]) == 0
    assert "'ppo/gradient_norm': nan" in capsys.readouterr().out

"""Tiny real runs, made when first asked for by main.py and test.py."""

from rl import main, test
from tests.support.helpers import ROOT, only_run

SMALL = [
    "--num-batches", "2", "--meta-batch-size", "2", "--fast-batch-size", "3",
    "--num-test-tasks", "6", "--test-batch-size", "3",
    "--num-test-steps", "2", "--test-freq", "1", "--hidden-size", "8", "--nm-size", "3", "--num-context-params", "2",
    "--tasks-per-group", "3", "--num-workers", "0", "--save-freq", "9",
]  # fmt: skip
GRAPH = ["--env-name", "CTgraphEnvGoalChange-v0", "--env-config-path", str(ROOT / "rl/envs/ctgraph/ctgraph_d2.json")]
RUNS = {
    "navigation": ["--neuromodulation"],
    "plain": [],
    "maml": ["--neuromodulation", "--nm-gate", "soft", "--maml"],
    "graph": [*GRAPH, "--neuromodulation", "--nm-gate", "soft"],
    "own": ["--env-name", "tests.support.user_environments:Seek-v0"],
    "cheetah": ["--env-name", "HalfCheetahDir-v1", "--outer-step", "ppo"],
}


class TinyRuns:
    """Makes each run and each evaluation once.

    Args:
        folder: where everything goes.
    """

    def __init__(self, folder):
        self.folder = folder

    def run(self, name):
        """The log folder of a run of two iterations, one of RUNS."""
        place = self.folder / name
        if not place.exists():
            line = [*SMALL, *RUNS[name], "--logdir", str(place / "logs"), "--savedir", str(place / "saves")]
            assert main.program(line) == 0
        return only_run(place / "logs")

    def evaluation(self, name, *options):
        """The folder of an evaluation of its last policy."""
        logdir = self.folder / "_".join(["evaluation", name, *options]).replace("/", "-")
        if not logdir.exists():
            assert self.evaluate(name, *options, "--logdir", str(logdir)) == 0
        return only_run(logdir)

    def evaluate(self, name, *options):
        """Run test.py on a run's last policy: its exit status."""
        run = self.run(name)
        policy = only_run(self.folder / name / "saves") / "policy-1.pt"
        return test.main([str(run / "config.json"), str(policy), "--num-workers", "0", *options])

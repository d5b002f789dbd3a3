"""Runs of main.py and test.py in several ranks, on the loopback interface, without torchrun's own processes."""

import sys

import torch.distributed as dist

from tests.support.forked import Forked


class RankPrograms:
    """The ranks of one run. The store that they meet at is this process's, as it is torchrun's otherwise.

    Args:
        folder: where their output is kept.
        lines: the options of each rank.
        program: which one, main or test.
        environment: further variables.
    """

    def __init__(self, folder, lines, program="main", environment=None):
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        size = str(len(lines))
        shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        shared |= {"MASTER_PORT": str(self.store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"} | (environment or {})
        self.programs = [
            Forked(folder, line, program, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank, line in enumerate(lines)
        ]

    def finish(self):
        """Wait for the end of all, and of all their processes; their exit statuses."""
        return [program.finish() for program in self.programs]

    @property
    def complaints(self):
        """What each rank complained of: its lines on standard error, advice how to resume left out."""
        return [
            [line for line in program.errors.splitlines() if not line.startswith("resume with: ")]
            for program in self.programs
        ]


def torchrun(*options):
    """The command that starts a program in ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", *options]

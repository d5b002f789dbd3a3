"""Neuromodulated CAVIA: meta-reinforcement learning by a few context parameters and gated hidden units.

`rl.load(run)` is what a notebook begins with (`rl.agent`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rl.agent import Agent

__all__ = ["load"]


def load(folder: str | Path, policy: str | Path | None = None) -> "Agent":
    """The agent of a run: see `rl.agent.load`."""
    from rl import agent  # PyTorch is imported when it is needed

    return agent.load(folder, policy)

"""The processes of a run that torchrun starts, its ranks. They are equals: all run the same program on the same options
and tasks, each samples and differentiates its own blocks of tasks, and all take the same decisions on the same sums.
Rank 0 alone reads states, writes and prints.

    torchrun --standalone --nproc-per-node 2 main.py <the usual options>

A process that torchrun did not start is rank 0 of 1, and nothing here costs it anything. Ranks exchange tensors and
JSON over gloo, never pickles.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rl import start
from rl.errors import UserError
from rl.sums import ordered_sum

MEETING = timedelta(minutes=10)  # until all ranks have started, their machines included
PATIENCE = timedelta(hours=2)  # of a message: longer than any iteration; only a machine without power takes so long


class RankLost(UserError):
    """Another rank of the run is gone."""

    status = 1


class Ranks:
    """This process among those of the run.

    Args:
        environment: where torchrun's variables are.

    Attributes:
        rank, size: its number, and how many there are.
        local_rank, local_size: the same among those of its machine.

    Raises:
        UserError: torchrun's variables make no sense.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ):
        self.rank, self.size = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
        self.local_rank = _number(environment, "LOCAL_RANK", 0)
        self.local_size = _number(environment, "LOCAL_WORLD_SIZE", 1)
        if self.rank >= self.size:
            raise UserError(f"RANK={self.rank}: expected less than WORLD_SIZE, which is {self.size}")

    @property
    def leads(self) -> bool:
        """Whether this is the rank that reads states, writes and prints."""
        return self.rank == 0

    def join(self) -> None:
        """Meet the other ranks.

        Raises:
            RankLost: they cannot be reached.
        """
        if self.size == 1:
            return
        if "TORCHELASTIC_RUN_ID" in os.environ:
            start.signal_at_parents_end(signal.SIGTERM)  # without torchrun a rank is an orphan
        if not self.leads:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if self.size == self.local_size and sys.platform == "linux":
            # On one machine the loopback interface reaches all, whatever the machine's name stands for.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        import torch.distributed as dist  # one process does without

        self._dist = dist
        with self._naming_the_loss("cannot meet the others"):
            store, _, _ = next(dist.rendezvous("env://", timeout=MEETING))
            # torchrun keeps one store for all ranks that it ever starts, and in it lie the addresses of those killed.
            store = dist.PrefixStore(self._fresh_name(store), store)
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def _fresh_name(self, store: Any) -> str:
        """A name that these ranks alone agree on, whatever earlier ones left in the store.

        Each rank puts down a token, and marks every set of tokens that it sees; the first set that all have marked is
        the name. Ranks that are gone mark nothing.
        """
        store.set(f"token/{self.rank}", uuid.uuid4().hex)
        tokens, deadline = [f"token/{rank}" for rank in range(self.size)], time.monotonic() + MEETING.total_seconds()
        while time.monotonic() < deadline:
            if store.check(tokens):
                name = hashlib.sha256(b"".join(map(store.get, tokens))).hexdigest()
                store.set(f"{name}/{self.rank}", "")
                if store.check([f"{name}/{rank}" for rank in range(self.size)]):
                    return name
            time.sleep(0.02)
        raise RuntimeError(f"not all {self.size} came within {MEETING}")

    def leave(self) -> None:
        """Part from the others, all in agreement."""
        if self.size > 1:
            self._dist.destroy_process_group()

    def share(self, count: int, unit: int) -> slice:
        """This rank's share of `count` tasks, dealt in order and in whole units; of few units the first ranks have one
        each.
        """
        units = math.ceil(count / unit)
        first, last = (-(-units * rank // self.size) * unit for rank in (self.rank, self.rank + 1))
        return slice(min(first, count), min(last, count))

    def ordered_sum(self, rows: Float[Tensor, "B X"]) -> Float[Tensor, " X"]:
        """The sum of the rows of all ranks, added one by one in the order of the ranks: the same bytes for any number
        of them.
        """
        parts = [rows] if self.size == 1 else self._all_rows(rows)
        return ordered_sum(row for part in parts for row in part)

    def gather(self, arrays: Mapping[str, np.ndarray] | None) -> list[dict[str, np.ndarray]]:
        """At rank 0 the arrays of all ranks that have some, in the order of the ranks; nothing elsewhere."""
        if self.size == 1:
            return [] if arrays is None else [dict(arrays)]
        found = self._all_bytes(b"" if arrays is None else _packed(arrays), only_to_rank_0=True)
        return [_unpacked(content) for content in found if content]

    def broadcast(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rank 0's arrays, at all ranks; those of others do not matter."""
        if self.size == 1:
            return dict(arrays)
        return _unpacked(self._all_bytes(_packed(arrays) if self.leads else b"")[0])

    def agree(self, facts: Mapping[str, str]) -> None:
        """Make sure that all ranks have the same facts.

        Raises:
            UserError: at all ranks, naming the first that differs from rank 0, its machine, and how.
        """
        if self.size == 1:
            return
        found = self._all_bytes(json.dumps([socket.gethostname(), dict(facts)]).encode())
        (_, ours), *others = map(json.loads, found)
        for rank, (machine, theirs) in enumerate(others, 1):
            differences = [
                f"{name} {theirs.get(name, 'none')}, rank 0 has {ours.get(name, 'none')}"
                for name in sorted(ours.keys() | theirs.keys())
                if ours.get(name) != theirs.get(name)
            ]
            if differences:
                raise UserError(f"rank {rank} on {machine} differs from rank 0: {'; '.join(differences)}")

    def _all_rows(self, rows: Float[Tensor, "B X"]) -> list[Float[Tensor, "_ X"]]:
        """The rows of all ranks, of which each may have another number, on this rank's device."""
        sizes = self._all_sizes(len(rows))
        padded = torch.zeros(max(sizes), rows.shape[1], dtype=rows.dtype)
        padded[: len(rows)] = rows  # those of a GPU, too: 0.3 MB a product need no transport of their own
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._naming_the_loss():
            self._dist.all_gather(parts, padded)
        return [part[:size].to(rows.device) for part, size in zip(parts, sizes, strict=True)]

    def _all_bytes(self, payload: bytes, only_to_rank_0: bool = False) -> list[bytes]:
        """The payloads of all ranks, in their order; of ranks other than 0 an empty list where they are not to know."""
        sizes = self._all_sizes(len(payload))
        padded = torch.frombuffer(bytearray(payload.ljust(max(1, *sizes), b"\0")), dtype=torch.uint8)
        parts = [torch.empty_like(padded) for _ in sizes] if self.leads or not only_to_rank_0 else []
        with self._naming_the_loss():
            if only_to_rank_0:
                self._dist.gather(padded, parts or None, dst=0)
            else:
                self._dist.all_gather(parts, padded)
        return [part[:size].numpy().tobytes() for part, size in zip(parts, sizes, strict=False)]

    def _all_sizes(self, size: int) -> list[int]:
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._naming_the_loss():
            self._dist.all_gather(found, torch.tensor([size]))
        return [int(count) for count in found]

    @contextlib.contextmanager
    def _naming_the_loss(self, what: str = "has lost the others") -> Iterator[None]:
        """While entered, an error of the network is a `RankLost` of one line; gloo's errors have no class."""
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            # Without its source's place and advice.
            reason = re.sub(r"^(\[[^]]*\] *)+", "", str(error)).partition("\n")[0].partition(". ")[0]
            raise RankLost(f"rank {self.rank} of {self.size} {what}: {reason or type(error).__name__}") from None


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def _number(environment: Mapping[str, str], name: str, least: int) -> int:
    given = environment.get(name, str(least))
    if not given.isdecimal() or int(given) < least:
        raise UserError(f"{name}={given}: expected a whole number of at least {least}, or no such variable")
    return int(given)

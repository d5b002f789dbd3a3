"""The processes of a run that torchrun starts, its ranks: how they meet, what they tell each other, how they end.

    torchrun --standalone --nproc-per-node 2 main.py <the usual options>

Rank 0 leads: it says what is to be done, the others do it too and send what they found. A process that torchrun did not
start is rank 0 of 1, and nothing here costs it anything.
"""

import contextlib
import multiprocessing.util
import os
import pickle
import queue
import re
import signal
import sys
import threading
import time
import uuid
from concurrent.futures import Future
from datetime import timedelta

import torch

from rl import start
from rl.errors import UserError

PATIENCE = timedelta(hours=2)  # of a message: longer than any iteration; only a machine without power takes so long
MEETING = timedelta(minutes=10)  # until all ranks are there


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
        received: bytes of the messages that have come from other ranks so far.
    """

    def __init__(self, environment=os.environ):
        self._refused = None
        try:
            self.rank, self.size, self.local_rank, self.local_size = _told(environment)
        except UserError as error:
            # Until `join`, where errors are turned into one line, it is alone.
            self.rank, self.size, self.local_rank, self.local_size = 0, 1, 0, 1
            self._refused = error
        self.received = 0
        self._store = None
        self._vectors = None  # the process group that sends vectors; None: the same as for all else

    def join(self):
        """Meet the other ranks.

        Raises:
            UserError: torchrun's variables say nothing that can be.
            RankLost: they cannot be reached.
        """
        if self._refused:
            raise self._refused
        if self.size == 1:
            return
        # Imported here alone: one process does without.
        import torch.distributed as dist

        self._dist = dist
        if "TORCHELASTIC_RUN_ID" in os.environ:
            start.signal_at_parents_end(signal.SIGTERM)  # without torchrun a rank is an orphan
        if self.rank > 0:
            # Rank 0 speaks for all; errors have a stream of their own.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if self.size == self.local_size and sys.platform == "linux":
            # On one machine the loopback interface reaches all, whatever the machine's name stands for.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._orders = queue.SimpleQueue()
        threading.Thread(target=self._communicate, daemon=True).start()
        try:
            self._aside(self._meet)
        except (RuntimeError, ValueError, OSError) as error:
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise RankLost(
                f"rank {self.rank} of {self.size} cannot meet the others at {place}: {_reason(error)}; expected a free "
                "port that all machines reach"
            ) from None

    def use(self, device, dtype=torch.float32):
        """Send vectors from a device to the same kind of device: NCCL between GPUs.

        Args:
            device, dtype: of all vectors.
        """
        self.device, self.dtype = torch.device(device), dtype
        if self.size > 1 and self.device.type == "cuda":
            self._vectors = self._wait(self._group_of_gpus)

    def leave(self):
        """Part from the others, all in agreement."""
        if self.size > 1:
            self._dist.destroy_process_group()

    def broadcast(self, value=None, vector=None):
        """Tell all ranks what rank 0 gives.

        Args:
            value: anything that can be pickled; of rank 0.
            vector: a tensor [P], or None; of rank 0.

        Returns:
            (value, vector) of rank 0

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return value, vector
        return self._wait(lambda: self._broadcast(value, vector))

    def gather(self, value):
        """Bring the values of all ranks to rank 0: a list in the order of the ranks there, None elsewhere.

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return [value]
        return self._wait(lambda: self._gather(value))

    def gather_rows(self, rows, counts):
        """Bring rows of all ranks to rank 0.

        Args:
            rows: tensor [B, X] of this rank.
            counts: B of every rank.

        Returns:
            tensor [sum of B, X] at rank 0, in the order of the ranks; None elsewhere

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return rows
        return self._wait(lambda: self._gather_rows(rows, counts))

    def end(self, status):
        """End the process, where others are at work too: at once, for messages under way would hold it up."""
        if self.size > 1:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            multiprocessing.util._exit_function()  # of all that is done at an end, removes the workers' folder
            os._exit(status)

    def speaks(self, status):
        """Of several ranks that end with an error, the first one says why, and all end with its status.

        Args:
            status: this rank's own exit status.

        Returns:
            (whether this rank is to say why it ends, the status to end with)
        """
        if self._store is None:
            # Not met yet: each has its own reason, unless it was told to end.
            return self.rank == 0 or status < 128, status
        try:
            if self._store.add("errors", 1) == 1:
                self._store.set("status", str(status))
                return True, status
            self._store.wait(["status"], timedelta(seconds=10))
            return False, int(self._store.get("status"))
        except RuntimeError:  # torchrun, which keeps the store, is gone
            return self.rank == 0, status

    def _meet(self):
        store, _, _ = next(self._dist.rendezvous("env://", timeout=MEETING))
        # torchrun keeps one store for all that it starts, and in it lie the addresses of ranks that are gone.
        self._store = self._dist.PrefixStore(f"neuromodulated-cavia/{self._agreed(store)}", store)
        # A connection of its own: in one that waits, the first word of an error would have to wait, too.
        store = self._store.clone()
        self._dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def _agreed(self, store):
        """A name that these ranks alone have agreed on, whatever the store holds of earlier ones.

        Every rank puts down a token of its own. Rank 0 proposes a name to the tokens that it finds, a rank whose token
        is among them accepts, and once all have, the name holds.
        """
        own, begun = uuid.uuid4().hex, time.monotonic()
        store.set(f"token/{self.rank}", own)
        tokens, name = None, ""
        while time.monotonic() < begun + MEETING.total_seconds():
            keys = [f"token/{rank}" for rank in range(self.size)]
            if self.rank == 0 and store.check(keys) and (found := [store.get(key) for key in keys]) != tokens:
                tokens, name = found, uuid.uuid4().hex
                store.set("proposal", pickle.dumps((name, tokens)))
            if self.rank > 0 and store.check(["proposal"]):
                name, tokens = pickle.loads(store.get("proposal"))
            if tokens and tokens[self.rank : self.rank + 1] == [own.encode()]:
                store.set(f"{name}/accepted/{self.rank}", "")
                if self.rank == 0 and store.check([f"{name}/accepted/{rank}" for rank in range(self.size)]):
                    store.set(f"{name}/holds", "")
                if store.check([f"{name}/holds"]):
                    return name
            time.sleep(0.02)
        raise RuntimeError(f"not all of them came within {MEETING}")

    def _group_of_gpus(self):
        torch.cuda.set_device(self.device)  # of this thread
        return self._dist.new_group(backend="nccl", timeout=PATIENCE)

    def _communicate(self):
        """The thread of all messages: signals reach the main one while it waits."""
        while True:
            operation, done = self._orders.get()
            try:
                done.set_result(operation())
            except BaseException as error:
                done.set_exception(error)

    def _aside(self, operation):
        """The result of an operation of that thread."""
        done = Future()
        self._orders.put((operation, done))
        return done.result()

    def _wait(self, operation):
        try:
            return self._aside(operation)
        except RuntimeError as error:
            if not self._of_network(error):
                raise
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, to all that are left: the reason is known
            raise RankLost(f"rank {self.rank} has lost the others: {_reason(error)}") from None

    def _of_network(self, error):
        """Whether it tells of other ranks: gloo's have no class, but name its source. Of a GPU's memory none does."""
        return (isinstance(error, self._dist.DistError) or "gloo" in str(error)) and "out of memory" not in str(error)

    def _broadcast(self, value, vector):
        payload = _packed(value)
        sizes = torch.tensor([len(payload), -1 if vector is None else len(vector)])
        self._dist.broadcast(sizes, 0)
        length, vector_length = sizes.tolist()
        if self.rank > 0:
            payload = torch.empty(length, dtype=torch.uint8)
            vector = None if vector_length < 0 else torch.empty(vector_length, dtype=self.dtype, device=self.device)
        self._dist.broadcast(payload, 0)
        if vector is not None:
            self._await_all()
            self._dist.broadcast(vector, 0, group=self._vectors)
            self._settle()
        if self.rank > 0:
            value = _unpacked(payload)
            self.received += length + (0 if vector is None else vector.nbytes)
        return value, vector

    def _gather(self, value):
        if self.rank > 0:
            payload = _packed(value)
            self._dist.send(torch.tensor([len(payload)]), 0)
            self._dist.send(payload, 0)
            return None
        found = [value]
        for rank in range(1, self.size):
            self._dist.recv(size := torch.zeros(1, dtype=torch.int64), rank)
            self._dist.recv(payload := torch.empty(int(size), dtype=torch.uint8), rank)
            found.append(_unpacked(payload))
            self.received += int(size)
        return found

    def _gather_rows(self, rows, counts):
        self._await_all()
        if self.rank > 0:
            self._exchange(self._dist.isend, [(rows.contiguous(), 0)])
            return None
        found = rows.new_empty(sum(counts), rows.shape[1])
        parts = found.split(list(counts))
        parts[0].copy_(rows)
        self._exchange(self._dist.irecv, [(parts[rank], rank) for rank in range(1, self.size)])
        self.received += sum(received.nbytes for received in parts[1:])
        return found

    def _exchange(self, operation, pairs):
        """Send or receive vectors, each with a rank; as a batch, since NCCL would first connect any two ranks anew."""
        batch = [self._dist.P2POp(operation, vector, rank, self._vectors) for vector, rank in pairs]
        for pending in self._dist.batch_isend_irecv(batch):
            pending.wait()
        self._settle()

    def _await_all(self):
        """Wait until all ranks are done with computing: NCCL, which comes next, would not notice that one has died."""
        if self._vectors:
            self._settle()
            word = torch.zeros(1, dtype=torch.uint8)
            if self.rank > 0:
                self._dist.send(word, 0)
            else:
                for rank in range(1, self.size):
                    self._dist.recv(word, rank)

    def _settle(self):
        """NCCL only begins: wait for the end here, where signals still reach the main thread."""
        if self._vectors:
            torch.cuda.current_stream(self.device).synchronize()


def part(count, rank, size):
    """Which of `count` things, dealt in order, are a rank's: (start, stop). Of few, the first ranks have one each."""
    return -(-count * rank // size), -(-count * (rank + 1) // size)


def _told(environment):
    """What torchrun's variables say: [rank, size, local rank, local size].

    Raises:
        UserError: one of them is no number, or none that can be.
    """
    found = []
    for name, least in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)):
        given = environment.get(name, str(least))
        try:
            found.append(int(given))
        except ValueError:
            found.append(-1)
        if found[-1] < least:
            raise UserError(f"{name}={given}: expected a whole number of at least {least}, or no such variable")
    if found[0] >= found[1]:
        raise UserError(f"RANK={found[0]}: expected less than WORLD_SIZE, which is {found[1]}, or no such variable")
    return found


def _packed(value):
    return torch.frombuffer(bytearray(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)), dtype=torch.uint8)


def _unpacked(payload):
    return pickle.loads(payload.numpy().data)


def _reason(error):
    """An error of torch's in its own first words, without the places in its source."""
    return re.sub(r"^(\[[^]]*\] *)+", "", str(error)).partition("\n")[0].partition(". ")[0] or type(error).__name__

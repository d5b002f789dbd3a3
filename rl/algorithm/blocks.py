"""Sums over tasks of what the outer step needs, block by block.

A block is a run of consecutive tasks, the same whatever computes it. It is processed in chunks; a chunk's constants
(advantages, old distribution) are made once, its derivatives are kept for all conjugate-gradient products, and chunks
are spread over a pool of threads with one torch thread each. A block's chunks are added in their order, and so are the
blocks, later: every byte is independent of the number of threads and of the processes that the blocks are dealt to.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import torch

from rl import machine
from rl.algorithm.batch import distinct_rows
from rl.algorithm.chunks import Budget, Chunk

ROWS = 2048  # network rows of a chunk, at most
# Network rows × weights of a chunk, about, by the kind of device: 2 to 3 ms of multiplications; on a GPU, where Python
# costs more than they do, all tasks of a Half-Cheetah iteration.
WORK = {"cpu": 100e6, "cuda": 20e9}
# Bytes of a row and hidden unit on a GPU. Kept, and in use at the most, in float32 with soft gates: 44 and 66 by CAVIA
# with relu, 120 and 142 by MAML with tanh, 177 and 198 by CAVIA with silu.
GPU_ROW = 256


def tasks_per_block(num_tasks, group, rows, num_params, work=WORK["cpu"]):
    """How many tasks make a block: whole groups, in as many equal blocks as the work is worth.

    Args:
        num_tasks: K, of an iteration.
        group: tasks that are sampled together.
        rows: distinct observations of a task, at most.
        num_params: weights of the policy.
        work: rows × weights that a block is worth.
    """
    num_groups = math.ceil(num_tasks / group)
    count = min(max(int(num_tasks * rows * num_params / work), 1), num_groups)
    return math.ceil(num_groups / count) * group


class Blocks:
    """The blocks of tasks that this process computes; all sums are rows, one a block, in order.

    Args:
        policy: `MLPPolicy`.
        options: `rl.algorithm.chunks.Options`.
        size: tasks of a block; the last one may have fewer. None: all tasks are one block.
        memory: bytes that may be kept for curvature products; what lies beyond is computed again for each.
        rows: the most network rows (tasks × distinct observations) of a chunk; decides the last bits of the results.
            Default: what a CPU's cache likes, or what half of a GPU's memory has room for.
        work: network rows × weights that a chunk is worth; likewise. Default: the device's.
        threads: how many chunks are worked on at once; decides nothing but speed. Default: all cores, or one for a GPU.
        dtype, device: of the computation.
    """

    def __init__(
        self,
        policy,
        options,
        size=None,
        memory=float("inf"),
        rows=None,
        work=None,
        threads=None,
        dtype=torch.float32,
        device="cpu",
    ):
        self.policy = policy
        self.options = options
        self.size = size
        self.memory = memory
        self.dtype = dtype
        self.device = torch.device(device)
        on_gpu = self.device.type == "cuda"
        self.rows = rows or (_rows_in_half(policy, self.device) if on_gpu else ROWS)
        self.work = work or WORK[self.device.type]
        self.pool = ThreadPoolExecutor(threads or (1 if on_gpu else machine.cores()))
        self.chunks = []

    def load(self, before, after):
        """Take the `Episodes` of the blocks' tasks before and after the inner update, for all that follows."""
        self.before, self.after = before, after
        self.num_tasks = before.mask.shape[0]

    def linearize(self, vector):
        """Linearize at θ_old [P]: surrogate losses and gradients now, curvature products later.

        Returns:
            [B, 1 + P]: of each block the surrogate loss and its gradient, sums over its tasks. All nan where the
            episodes' numbers are such that no advantages can be computed.
        """
        budget = Budget(self.memory)

        def linearized(chunk):
            loss, gradient, inner_losses = chunk.linearize(vector, budget)
            return torch.cat([loss.reshape(1), gradient]), inner_losses

        self.chunks = []
        try:
            self.chunks, self.counts = self._cut()
        except FloatingPointError:
            return vector.new_full((len(self._starts()), 1 + vector.numel()), float("nan"))
        rows, inner_losses = zip(*self._map(linearized, self.chunks), strict=True)
        self.inner_losses = torch.cat(inner_losses).cpu().numpy()
        self.ridge_retries = sum(chunk.ridge_retries for chunk in self.chunks)
        return self._by_block(rows)

    def notes(self):
        """What `linearize` met besides: (inner losses, array [K]; number of ridge retries)."""
        return self.inner_losses, self.ridge_retries

    def product(self, vector):
        """The Hessian of the KL divergence at θ_old times v [P]: [B, P], sums over the tasks of each block."""
        return self._by_block(self._map(lambda chunk: chunk.product(vector), self.chunks))

    def release(self):
        """Drop what is kept for products."""
        for chunk in self.chunks:
            chunk.release()

    def evaluate(self, vector):
        """The surrogate loss and KL(π_θ ‖ π_old) at another θ [P]: [B, 2], sums over the tasks of each block."""
        return self._by_block(self._map(lambda chunk: torch.stack(chunk.evaluate(vector)), self.chunks))

    def _starts(self):
        return range(0, self.num_tasks, self.size or self.num_tasks)

    def _cut(self):
        """Cut each block into `Chunk`s: (all of them in order, how many each block has)."""
        pieces, counts = [], []
        for start in self._starts():
            stop = min(start + self._starts().step, self.num_tasks)
            size = self._chunk_size(self.before.tasks(start, stop))
            cuts = [(first, min(first + size, stop)) for first in range(start, stop, size)]
            pieces += cuts
            counts.append(len(cuts))

        def make(piece):
            return Chunk(
                self.policy, self.before.tasks(*piece), self.after.tasks(*piece), self.options, self.dtype, self.device
            )

        return self._map(make, pieces), counts

    def _chunk_size(self, before):
        """Tasks of a block's chunks: few enough for their activations to stay in the cache (or in a GPU's memory), and
        enough work for their overhead not to matter; a function of the block's episodes alone.
        """
        num_tasks, horizon, num_episodes, size = before.observations.shape
        first = distinct_rows(before.observations[:1].reshape(1, horizon * num_episodes, size))
        rows = horizon * num_episodes if first is None else first[0].shape[1]
        work = num_tasks * rows * self.policy.num_params
        count = max(round(work / self.work), math.ceil(num_tasks * rows / self.rows), 1)
        return math.ceil(num_tasks / min(count, num_tasks))

    def _by_block(self, parts):
        """The chunks' tensors [X], added in the order of the chunks of each block: [B, X]."""
        parts = iter(parts)
        return torch.stack([ordered_sum(next(parts) for _ in range(count)) for count in self.counts])

    def _map(self, function, items):
        return list(self.pool.map(function, items))


def _rows_in_half(policy, device):
    """How many network rows half of a GPU's memory has room for."""
    _, total = torch.cuda.mem_get_info(device)
    return max(1, int(total / 2 / (GPU_ROW * sum(policy.architecture.hidden_sizes))))


def ordered_sum(rows):
    """The sum of tensors, in their order."""
    rows = iter(rows)
    total = next(rows)
    for row in rows:
        total = total + row
    return total

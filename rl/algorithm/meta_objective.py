"""The meta-objective of one iteration: sums over tasks, whoever computes them.

The tasks are dealt to ranks in *blocks*, runs of consecutive tasks that are the same for any number of ranks. A block
is computed in *chunks*, whose derivatives are kept for all curvature products, by a pool of threads with one torch
thread each. A block's chunks are added in their order, and so are the blocks, so every byte is independent of the
number of threads and of ranks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from rl import machine
from rl.algorithm.batch import distinct_rows
from rl.algorithm.chunks import Chunk
from rl.algorithm.jacobian import Vector
from rl.algorithm.options import Options
from rl.algorithm.terms import Budget
from rl.algorithm.trajectories import Trajectories
from rl.policies import MLPPolicy
from rl.sums import ordered_sum

ROWS = 2048  # network rows of a chunk, at most
# Network rows × weights of a chunk, about, by the kind of device: 2 to 3 ms of multiplications; on a GPU, where Python
# costs more than they do, all tasks of a Half-Cheetah iteration.
WORK = {"cpu": 100e6, "cuda": 20e9}
# Bytes of a row and hidden unit on a GPU. Kept, and in use at the most, in float32 with soft gates: 44 and 66 by CAVIA
# with relu, 120 and 142 by MAML with tanh, 177 and 198 by CAVIA with silu.
GPU_ROW = 256
ALIKE = 1e-9  # returns whose deviation is a smaller share of their size differ by rounding alone

OrderedSum = Callable[[Float[Tensor, "B X"]], Float[Tensor, " X"]]


def tasks_per_block(num_tasks: int, group: int, rows: int, num_params: int, work: float = WORK["cpu"]) -> int:
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


class Compute:
    """How and where chunks are computed.

    Args:
        block: tasks of a block; the last one may have fewer. None: all tasks are one block.
        memory: bytes that may be kept for curvature products; what lies beyond is computed again for each.
        rows: the most network rows (tasks × distinct observations) of a chunk; decides the last bits of the results.
            Default: what a CPU's cache likes, or what half of a GPU's memory has room for.
        work: network rows × weights that a chunk is worth; likewise. Default: the device's.
        threads: how many chunks are worked on at once; changes speed only. Default: all cores, or one for a GPU.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        block: int | None = None,
        memory: float = float("inf"),
        rows: int | None = None,
        work: float | None = None,
        threads: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.policy, self.block, self.memory, self.dtype = policy, block, memory, dtype
        self.device = torch.device(device)
        on_gpu = self.device.type == "cuda"
        self.rows = rows or (_rows_in_half(policy, self.device) if on_gpu else ROWS)
        self.work = work or WORK[self.device.type]
        self.threads = threads or (1 if on_gpu else machine.cores())
        self.pool = ThreadPoolExecutor(self.threads)

    def map(self, function: Callable, items: Iterable) -> list:
        """The results of a function, in order."""
        return list(self.pool.map(function, items))

    def cuts(self, episodes: Trajectories) -> tuple[list[slice], list[int]]:
        """Cut the tasks of episodes into chunks: (the tasks of each, how many chunks each block has)."""
        num_tasks = episodes.mask.shape[0]
        cuts, counts = [], []
        for start in range(0, num_tasks, self.block or num_tasks):
            stop = min(start + (self.block or num_tasks), num_tasks)
            size = self._chunk_size(episodes.tasks(start, stop))
            of_block = [slice(first, min(first + size, stop)) for first in range(start, stop, size)]
            cuts += of_block
            counts.append(len(of_block))
        return cuts, counts

    def _chunk_size(self, episodes: Trajectories) -> int:
        """Tasks of a block's chunks: few enough for their activations to stay in the cache (or in a GPU's memory), and
        enough work for their overhead not to matter; a function of the block's episodes alone.
        """
        num_tasks, horizon, num_episodes, size = episodes.observations.shape
        first = distinct_rows(episodes.observations[:1].reshape(1, horizon * num_episodes, size))
        rows = horizon * num_episodes if first is None else first[0].shape[1]
        work = num_tasks * rows * self.policy.num_params
        count = max(round(work / self.work), math.ceil(num_tasks * rows / self.rows), 1)
        return math.ceil(num_tasks / min(count, num_tasks))


class MetaObjective:
    """An `rl.algorithm.outer_step.OuterObjective` of this rank's episodes and, through `total`, of all ranks'.

    Args:
        theta: θ_old, which sampled.
        episodes: of this rank's tasks, after 0, 1, 2, … inner updates.
        products: as of `OuterStep`.
        total: from the rows of this rank's blocks to the sum over the blocks of all ranks, in order.

    Attributes:
        loss, gradient: at θ_old. NaN where the episodes' numbers are such that no advantages can be computed.
        inner_loss: the mean over tasks of the inner losses.
        ridge_retries: how often a baseline's ridge had to grow.
    """

    def __init__(
        self,
        compute: Compute,
        options: Options,
        theta: Vector,
        episodes: Sequence[Trajectories],
        products: int = 0,
        total: OrderedSum = ordered_sum,
    ):
        self.compute, self.total = compute, total
        cuts, self.counts = compute.cuts(episodes[0])
        budget = Budget(compute.memory)
        credit = self._credit(episodes[-1]) if options.exploration_credit else None

        def load(cut: slice) -> Chunk:
            own = [part.tasks(cut.start, cut.stop) for part in episodes]
            shares = None if credit is None else credit[cut]
            kept = (options, products, budget, shares, compute.dtype, compute.device)
            return Chunk(compute.policy, theta, own, *kept)

        def row(chunk: Chunk) -> Tensor:
            counts = theta.new_tensor([chunk.num_tasks, chunk.ridge_retries])
            return torch.cat([counts, torch.stack([chunk.loss, chunk.inner_losses.sum()]), chunk.gradient])

        try:
            self.chunks = compute.map(load, cuts)
            rows = self._by_block(row(chunk) for chunk in self.chunks)
        except FloatingPointError:
            rows = theta.new_full((len(self.counts), 4 + theta.numel()), float("nan"))
        found = total(rows)
        count, ridge_retries, loss, inner_loss = found[:4].tolist()
        self.num_tasks = count
        self.loss, self.gradient = loss / count, found[4:] / count
        self.inner_loss, self.ridge_retries = inner_loss / count, ridge_retries

    def _credit(self, after: Trajectories) -> Float[Tensor, " K"]:
        """Each task's mean return, standardised over the tasks of all ranks; 0 where all are alike up to rounding. Two
        passes, whose sums go by block as all do.
        """
        returns = torch.from_numpy((after.rewards * after.mask).sum(1).mean(1))
        block = self.compute.block or len(returns)

        def mean(values: Float[Tensor, " K"]) -> Tensor:
            rows = [torch.stack([values.new_tensor(len(part)), part.sum()]) for part in values.split(block)]
            count, total = self.total(torch.stack(rows))
            return total / count

        centred = returns - mean(returns)
        deviation = mean(centred.square()).sqrt()
        alike = deviation <= ALIKE * mean(returns.abs())
        return torch.zeros_like(centred) if alike else centred / deviation

    def loss_and_gradient(self, theta: Vector) -> tuple[float, Vector]:
        """As `OuterObjective.loss_and_gradient`."""

        def row(chunk: Chunk) -> Tensor:
            loss, gradient = chunk.loss_and_gradient(theta)
            return torch.cat([loss.reshape(1), gradient])

        found = self._mean(row)
        return float(found[0]), found[1:]

    def kl_hessian_product(self, vector: Vector) -> Vector:
        """As `OuterObjective.kl_hessian_product`."""
        return self._mean(lambda chunk: chunk.kl_hessian_product(vector))

    def evaluate(self, theta: Vector) -> tuple[float, float]:
        """As `OuterObjective.evaluate`."""
        found = self.total(self._rows(lambda chunk: torch.stack(chunk.evaluate(theta))))
        loss, kl = found.tolist()
        return loss / self.num_tasks, kl / self.num_tasks

    def _mean(self, of: Callable[[Chunk], Tensor]) -> Tensor:
        """The mean over all tasks of what chunks compute."""
        return self.total(self._rows(of)) / self.num_tasks

    def _rows(self, of: Callable[[Chunk], Tensor]) -> Float[Tensor, "B X"]:
        return self._by_block(self.compute.map(of, self.chunks))

    def _by_block(self, rows: Iterable[Tensor]) -> Float[Tensor, "B X"]:
        """The chunks' rows, added in the order of the chunks of each block."""
        rows = iter(rows)
        return torch.stack([ordered_sum(next(rows) for _ in range(count)) for count in self.counts])


def _rows_in_half(policy: MLPPolicy, device: torch.device) -> int:
    """How many network rows half of a GPU's memory has room for."""
    _, total = torch.cuda.mem_get_info(device)
    return max(1, int(total / 2 / (GPU_ROW * sum(policy.architecture.hidden_sizes))))

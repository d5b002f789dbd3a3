"""Linear centred kernel alignment, its permutation null, and the interval of its mean over pairs of tasks.

CKA(X, Y) = ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of column-centred X, Y, rows the same N observations (arXiv 1905.00414). It is
computed from K = XXᵀ, L = YYᵀ as ⟨K, L⟩ / (‖K‖ ‖L‖). It is 1 for representations equal up to rotation and scale.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

PERMUTATIONS = 100
RESAMPLES = 1000
_NEGLIGIBLE = 1e-5  # of the largest eigenvalue


class Similarity(NamedTuple):
    """CKA of each pair of tasks, NaN where a representation does not vary; its mean over pairs with an interval over
    tasks; mean and 95th percentile of that mean under the null. None where nothing is defined.
    """

    cka: Float[np.ndarray, "K K"]
    mean: float | None
    interval: tuple[float, float] | None
    null_mean: float | None
    null_95th: float | None


def grams(representations: Float[np.ndarray, "K N units"]) -> Float[np.ndarray, "K N N"]:
    """Centred Gram matrices of norm 1, float32; NaN for a representation that does not vary."""
    centred = representations - representations.mean(axis=1, keepdims=True, dtype=np.float64)
    kernels = centred @ centred.swapaxes(1, 2)
    norms = np.linalg.norm(kernels, axis=(1, 2), keepdims=True)
    varies = norms > 1e-12 * max(1.0, float(norms.max(initial=0.0)))
    return np.where(varies, kernels / np.where(varies, norms, 1.0), np.nan).astype(np.float32)


def cka(representations: Float[np.ndarray, "K N units"]) -> Float[np.ndarray, "K K"]:
    """Linear CKA of all pairs."""
    flat = grams(representations).reshape(len(representations), -1)
    return (flat @ flat.T).astype(np.float64)


def off_diagonal(matrix: Float[np.ndarray, "K K"]) -> float | None:
    """The mean over pairs of different tasks that are defined, or None."""
    values = matrix[np.triu_indices(len(matrix), 1)]
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def similarity(representations: Float[np.ndarray, "K N units"]) -> Similarity:
    """How alike the tasks' representations of the same N observations are.

    The null hypothesis is that representations are unrelated: the rows of each are permuted on their own.
    """
    matrix = cka(representations)
    mean = off_diagonal(matrix)
    if mean is None:
        return Similarity(matrix, None, None, None, None)
    rng = np.random.default_rng(0)
    null = null_means(grams(representations), rng)
    return Similarity(matrix, mean, interval(matrix, rng), float(np.mean(null)), float(np.percentile(null, 95)))


def null_means(kernels: Float[np.ndarray, "K N N"], rng: np.random.Generator) -> list[float]:
    """The mean over pairs after permuting the rows of every representation, once for each permutation.

    Gram matrices have few large eigenvalues: with K = FFᵀ, F [N, r], ⟨K, L⟩ = ‖FᵀG‖² costs r² and not N².
    """
    factors = []
    for kernel in kernels[np.isfinite(kernels[:, 0, 0])]:
        values, vectors = np.linalg.eigh(kernel)
        kept = values > _NEGLIGIBLE * values[-1]
        factors.append(vectors[:, kept] * np.sqrt(values[kept]))
    starts = np.cumsum([0] + [factor.shape[1] for factor in factors[:-1]])
    means: list[Any] = []
    for _ in range(PERMUTATIONS):
        joined = np.concatenate([factor[rng.permutation(len(factor))] for factor in factors], axis=1)
        squares = np.square(joined.T @ joined)
        means.append(off_diagonal(np.add.reduceat(np.add.reduceat(squares, starts, axis=0), starts, axis=1)))
    return means


def interval(matrix: Float[np.ndarray, "K K"], rng: np.random.Generator) -> tuple[float, float] | None:
    """The 95% interval of the mean over pairs, tasks being resampled; pairs of a task with itself do not count.

    None for fewer than three tasks: two make one pair, which has no spread.
    """
    count = len(matrix)
    if count < 3:
        return None
    drawn = rng.integers(count, size=(RESAMPLES, count))
    values = matrix[drawn[:, :, None], drawn[:, None, :]]
    values[drawn[:, :, None] == drawn[:, None, :]] = np.nan
    defined = np.isfinite(values).any(axis=(1, 2))
    low, high = np.percentile(np.nanmean(values[defined], axis=(1, 2)), [2.5, 97.5])
    return float(low), float(high)

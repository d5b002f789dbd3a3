"""The linear-feature baseline (arXiv 1604.06778): a value function refitted to every task's episodes.

Axes: K tasks, T steps, E episodes of a task, O observation size, F = 2·O + 4 features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-5
MAX_RETRIES = 12


def features(observations: Float[Tensor, "K T E O"], mask: Float[Tensor, "K T E"]) -> Float[Tensor, "K T E 2*O+4"]:
    """[o, o², t/100, (t/100)², (t/100)³, 1], t counted from 1; all zero where masked."""
    time = torch.arange(1, mask.shape[-2] + 1, dtype=observations.dtype, device=observations.device)[:, None] / 100.0
    time = time.expand(mask.shape)
    columns = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=-1)
    return torch.cat([observations, observations**2, columns], dim=-1) * mask[..., None]


def fit(
    design: Float[Tensor, "K T E F"], targets: Float[Tensor, "K T E"], ridge: float = RIDGE
) -> tuple[Float[Tensor, "K F"], int]:
    """Ridge regression of each task's returns on its features by the normal equations: (XᵀX + ρI) c = Xᵀy.

    Where the system of a task cannot be solved, its ridge ρ grows tenfold a try.

    Args:
        design: features X.
        targets: discounted returns y, zero where masked.
        ridge: ρ of the first try.

    Returns:
        (coefficients, number of retries made, summed over tasks)

    Raises:
        FloatingPointError: the features or targets are not finite, so that no ridge helps.
    """
    flat = design.flatten(1, 2)
    gram = flat.mT @ flat
    moment = (flat.mT @ targets.flatten(1, 2)[..., None]).squeeze(-1)
    if not (torch.isfinite(gram).all() and torch.isfinite(moment).all()):
        raise FloatingPointError("baseline: observations or returns are not finite")
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridges = torch.full((gram.shape[0], 1, 1), ridge, dtype=gram.dtype, device=gram.device)
    retries = 0
    for _ in range(MAX_RETRIES):
        coefficients, failure = torch.linalg.solve_ex(gram + ridges * identity, moment)
        unsolved = (failure != 0) | ~torch.isfinite(coefficients).all(dim=-1)
        if not unsolved.any():
            return coefficients, retries
        retries += int(unsolved.sum())
        ridges[unsolved] *= 10.0
    raise FloatingPointError(f"baseline: normal equations unsolved at ridge {float(ridges.max()):g}")


def values(design: Float[Tensor, "K T E F"], coefficients: Float[Tensor, "K F"]) -> Float[Tensor, "K T E"]:
    """V = X c, zero where the features are masked."""
    return (design.flatten(1, 2) @ coefficients[..., None]).squeeze(-1).unflatten(1, design.shape[1:3])

"""Where the outer step is computed: `--device`."""

import os

import torch

from rl.errors import UserError


def kind(name: str) -> str:
    """Where `--device` puts the outer step, if there is one: cpu or cuda."""
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def chosen(name: str, number: int = 0) -> torch.device:
    """The torch device of `--device`.

    Args:
        number: which of the machine's GPUs.

    Raises:
        UserError: cuda was chosen and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available to this PyTorch; expected cpu or auto")
    name = kind(name)
    if name == "cuda" and number >= torch.cuda.device_count():
        raise UserError(
            f"--device cuda: this machine has {torch.cuda.device_count()} GPUs, one for each process, and this is its "
            f"process {number + 1}; expected fewer processes (--nproc-per-node), or --device cpu"
        )
    return torch.device(name, number) if name == "cuda" else torch.device(name)


def use_gpu(place: torch.device, tf32: bool) -> float:
    """Have this process compute on a GPU, the same bytes each time, and round as chosen.

    Sums over repeated observations are then sorted, where they would be added up in any order. cuBLAS gets a fixed
    workspace by a variable that is read when it is first used; some versions of PyTorch refuse matrix products without
    it, others have a fixed one of their own. Memory that is not written yet need not be cleared: nothing reads it.

    Args:
        tf32: whether factors of float32 matrix products may be rounded to TensorFloat-32.

    Returns:
        bytes of its memory

    Raises:
        UserError: it is there, and full, or another process's alone.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # its class has it
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        torch.cuda.set_device(place)
        return torch.cuda.mem_get_info(place)[1]
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--device cuda: GPU {place.index} cannot be used: {reason}; expected one that has memory left and that no "
            "other process has to itself, or --device cpu"
        ) from None

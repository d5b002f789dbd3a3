"""Files are written whole or not at all, and nothing that is read can run code."""

import contextlib
import io
import json
import os
import tempfile
import warnings
from pathlib import Path

import torch

from rl.errors import UserError


def write_json(path, content):
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path, older=None):
    """A file is written under another name, flushed to the disk, then renamed: readers see the old one or the new.

    Args:
        path: the file.
        older: where the file before it is kept; default: nowhere.
    """
    temporary = Path(f"{path}.tmp")
    try:
        yield temporary
        _flush(temporary)
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(temporary, path)
        _flush(temporary.parent)
    except OSError as error:
        # A full disk has better uses for half a file.
        temporary.unlink(missing_ok=True)
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def appearing(folder):
    """A temporary folder, whose files move to `folder` once all are written; where that fails, none does."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield Path(place)
        for path in sorted(Path(place).iterdir()):
            os.replace(path, folder / path.name)


def _flush(path):
    """Have the operating system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(path, content):
    """torch.save; its own writer of files tells of a full disk in riddles."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


def load_tensors(path, expected):
    """torch.load without code.

    Args:
        path: the file.
        expected: what it is, in words.

    Raises:
        UserError: whatever is wrong with the file, in one line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: expected {expected}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file can end in any of torch's, zip's and pickle's exceptions
        # Their texts advise to load it without precautions.
        reason = f"it is damaged, or holds more than tensors ({type(error).__name__})"
        raise UserError(f"{path}: expected {expected}: {reason}") from None


def check_shapes(path, params, policy):
    """Hold a state dict, read from a path, against the policy's shapes.

    Raises:
        UserError: names the first differences.
    """
    expected = policy.shapes
    found = {name: tuple(value.shape) for name, value in params.items()}
    differences = [
        f"{name}: expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - 4} more)" if len(differences) > 4 else ""
        raise UserError(f"{path}: does not fit the configuration: {'; '.join(differences[:4])}{more}")


def _shape(shape):
    return "nothing" if shape is None else "×".join(map(str, shape)) or "a number"

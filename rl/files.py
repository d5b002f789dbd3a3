"""Files are written whole or not at all, and nothing that is read can run code."""

import contextlib
import fnmatch
import hashlib
import io
import json
import os
import secrets
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped, jaxtyped

from rl import machine
from rl.errors import UserError

LARGEST_TEXT = 100_000_000  # bytes of any JSON file here
# What a run's and an evaluation's folders hold: no file of anybody else may have such a name there.
RUN_FILES = (
    "config.json", "progress.csv", "events.out.tfevents.*", "flight-*.npz", "state.pt", "policy*.pt", ".lock", ".*.tmp",
    "wandb", "results.json", "tasks.json", "rewards.npy", "success_metric.npy", "contexts.npy", "activations.*",
    "episodes.npz", "probe.npz", "adaptation.*", "video-task*",
)  # fmt: skip


def is_of_run(name: str) -> bool:
    """Whether a file of a run or an evaluation has this name, or could have."""
    return any(fnmatch.fnmatchcase(name.casefold(), pattern) for pattern in RUN_FILES)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file is written under another name, flushed to the disk, then renamed: readers see the old one or the new.

    The other name is new and nobody can foresee it: where a folder comes from elsewhere, no link lies there.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(temporary.parent)
    except BaseException as error:
        # A full disk has better uses for half a file.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have begun to write: nobody may be writing now."""
    for path in folder.glob(f".{'[0-9a-f]' * 16}.tmp"):
        path.unlink()


def no_link(path: str, flags: int) -> int:
    """An `opener` of `open` for files that are written in place: a link could lead anywhere, a pipe waits for ever.

    Raises:
        UserError: there is something else than a regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UserError(f"{path}: expected a file that can be written, found a link, a folder, a pipe or a device")
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder, whose files move to `folder` once all are written; where that fails, none does."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield Path(place)
        for path in sorted(Path(place).iterdir()):
            os.replace(path, folder / path.name)


def _flush(path: Path) -> None:
    """Have the operating system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(path: Path, content: Any) -> None:
    """torch.save, through memory: torch's own writer reports a full disk by an error that names no file."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


@contextlib.contextmanager
def array_file(path: Path, dtype: Any, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An npy file that is filled part by part, whole or not at all; the entries are written to it in C order.

    numpy's own writers report a full disk by an error that has no number and names no file; a file mapped into memory
    does so by a signal that ends the process.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an array to an npy file, whole or not at all."""
    with array_file(path, values.dtype, values.shape) as file:
        file.write(np.ascontiguousarray(values).data)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a dict of arrays to an npz file, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def check_file(path: str | Path, expected: str, largest: float | None = None) -> None:
    """Hold a path that is to be read against what can be read: a pipe would let us wait for ever.

    Args:
        expected: what it is, in words.
        largest: bytes that it may have; default: what fits into memory.

    Raises:
        UserError: there is no such file, or something else; or it is too large.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected {expected}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise UserError(f"{path}: expected {expected}, found {kind}")
    largest = largest or machine.memory()
    if found.st_size > largest:
        raise UserError(
            f"{path}: expected {expected}, found a file of {machine.readable(found.st_size)}; "
            f"expected at most {machine.readable(largest)}"
        )


@contextlib.contextmanager
def _reading(path: str | Path, expected: str) -> Iterator[None]:
    """While a file is read, whatever is wrong with it becomes a `UserError` of one line."""
    check_file(path, expected)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError as error:
        raise UserError(f"{path}: expected {expected}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file can end in any of torch's, numpy's, zip's and pickle's exceptions
        # Their texts advise to load it without precautions.
        reason = f"it is damaged, or holds other things than numbers ({type(error).__name__})"
        raise UserError(f"{path}: expected {expected}: {reason}") from None


def sha256(path: str | Path, expected: str = "a file") -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Args:
        expected: what it is, in words.

    Raises:
        UserError: it cannot be read.
    """
    with _reading(path, expected), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(text: str) -> str:
    """A text with escapes for what is no Unicode in it, as names of files may not be."""
    return text.encode(errors="backslashreplace").decode()


def read_text(path: str | Path, expected: str) -> str:
    """The text of a file.

    Raises:
        UserError: it cannot be read.
    """
    check_file(path, expected, LARGEST_TEXT)
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected {expected}: {error}") from None


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: no such file, or it holds something else.
    """
    try:
        content = json.loads(read_text(path, "a JSON file"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def load_tensors(path: Path, expected: str) -> Any:
    """torch.load without code.

    Raises:
        UserError: whatever is wrong with the file, in one line.
    """
    import torch

    with _reading(path, expected):
        if zipfile.is_zipfile(path):
            _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def load_arrays(path: Path, expected: str, schema: Mapping[str, Any], **sizes: int) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, or as "" the array of an npy file; nothing in them can run code.

    Args:
        expected: what it is, in words.
        schema: name -> annotations of jaxtyping, of which an array must have one: its type and axes; axes of one name
            have one size in all arrays. A pattern such as "info.*" stands for any number of arrays, others must be
            there, and what the schema does not know is left out.
        sizes: of axes, where they are known.

    Raises:
        UserError: whatever is wrong with the file, in one line; numbers that are not finite, those of an environment's
            infos aside.
    """
    with _reading(path, expected):
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            found = {"": content} if isinstance(content, np.ndarray) else dict(content)
    patterns = {name: [own for own in found if fnmatch.fnmatchcase(own, name)] for name in schema}
    for name, own in patterns.items():
        if not own and "*" not in name:
            raise UserError(f"{path}: expected {expected}, found no {name or 'single array'} in it")
    arrays = {own: found[own] for pattern in patterns.values() for own in pattern}
    rows = {own: schema[pattern] for pattern, names in reversed(patterns.items()) for own in names}
    check_arrays(str(path), arrays, rows, **sizes)
    for name, values in arrays.items():
        if values.dtype.kind in "fc" and not name.startswith("info.") and not np.isfinite(values).all():
            place = f" in {name}" if name else ""
            raise UserError(f"{path}: expected {expected}, found numbers that are not finite{place}")
    return arrays


def check_arrays(place: str, arrays: Mapping[str, np.ndarray], rows: Mapping[str, Any], **sizes: int) -> None:
    """Hold arrays, each by its name, against their rows of a schema, as `load_arrays` has it.

    Raises:
        UserError: it begins with `place`.
    """
    known = "".join(f", {axis} = {size}" for axis, size in sizes.items())
    with jaxtyped("context"):
        for axis, size in sizes.items():
            axes: Any = Shaped[np.ndarray, axis]
            isinstance(np.broadcast_to(0, size), axes)  # binds the axis
        for name, values in arrays.items():
            kinds = rows[name] if isinstance(rows[name], tuple) else (rows[name],)
            if not isinstance(values, kinds) or not values.size:
                wanted = " or ".join(f"{kind.__name__.partition('[')[0]} [{kind.dim_str}]" for kind in kinds)
                where = f"{place}: {name}" if name else place
                raise UserError(f"{where}: expected {wanted}{known}; found {values.dtype} of shape {values.shape}")


def _check_archive(path: Path) -> None:
    """Hold the files in an archive against their checksums, which neither torch nor numpy reads in full."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > machine.memory() or archive.testzip() is not None:
            raise zipfile.BadZipFile

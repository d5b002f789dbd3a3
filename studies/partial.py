"""Half-finished runs of `make results` travel as results/<experiment>/<method>/<seed>.partial.tar.xz.

    python studies/partial.py pack                           # every run that has begun and is not done
    python studies/partial.py unpack EXPERIMENT METHOD SEED  # where it was packed, and has not begun here

An archive holds what `main.py --resume` needs: state, progress.csv and configuration; no policies, no event files.
`make results` unpacks it before it trains, and deletes it when the run is evaluated.
"""

import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rl.config import Parser
from rl.errors import UserError
from rl.run.interrupts import exit_status

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_000_000  # bytes of an archive: it is committed
LEFT_OUT = ("policy-*", "events.out.*", ".*", "*.log")


def archive(results: Path, run: Path) -> Path:
    """Where the archive of `<experiment>/<method>/<seed>` lies."""
    return results / run.parent / f"{run.name}.partial.tar.xz"


def pack(runs: Path, results: Path) -> list[Path]:
    """Pack every run that has a state and has not finished, and return the archives.

    Raises:
        UserError: one is larger than a commit should hold; the others are packed.
    """
    made, large = [], []
    for folder in sorted(path.parent for path in runs.glob("*/*/*/options")):
        if (folder / "trained").exists() or not any(folder.glob("saves/*/*/*/state.pt")):
            continue
        name, content = folder.relative_to(runs), io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:xz") as packed:
            # The state first: where the run goes on meanwhile, its logs may be ahead, never behind.
            for path in (folder / "options", *_files(folder / "saves"), *_files(folder / "logs")):
                data = path.read_bytes()
                member = tarfile.TarInfo(str(path.relative_to(runs)))
                member.size = len(data)
                packed.addfile(member, io.BytesIO(data))
        if content.tell() > LARGEST:
            large.append(f"{folder} ({content.tell() / 1e6:.1f} MB)")
            continue
        made.append(archive(results, name))
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].write_bytes(content.getvalue())
    if large:
        raise UserError(f"{', '.join(large)}: expected at most {LARGEST / 1e6:.0f} MB packed; the others are")
    return made


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not any(path.match(pattern) for pattern in LEFT_OUT)]


def unpack(runs: Path, results: Path, name: Path) -> bool:
    """Unpack `<experiment>/<method>/<seed>` where it was packed and has not begun here; say whether that was done."""
    path, folder = archive(results, name), runs / name
    if not path.exists() or (folder / "saves").exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, tarfile.open(path) as packed:
        packed.extractall(scratch, filter="data")
        for part in ("options", "logs", "saves"):  # the last one says that all is there
            if (folder / part).is_dir():
                shutil.rmtree(folder / part)
            os.replace(Path(scratch, name, part), folder / part)
    return True


def main(command_line: Sequence[str] | None = None) -> int:
    """Parse, do it, and turn errors into one line and an exit status."""
    parser = Parser(prog="partial.py", description="Half-finished runs that travel.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("pack")
    one = commands.add_parser("unpack")
    for part in ("experiment", "method", "seed"):
        one.add_argument(part)

    def run(_: object) -> None:
        options = parser.parse_args(command_line)
        if options.what == "pack":
            for path in pack(options.runs, options.results):
                print(path)
        else:
            unpack(options.runs, options.results, Path(options.experiment, options.method, options.seed))

    return exit_status("partial.py", run)


if __name__ == "__main__":
    sys.exit(main())

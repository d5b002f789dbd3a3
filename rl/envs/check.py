"""Hold an environment against what training and evaluation rely on.

python -m rl.envs.check package.module:Id

prints a line for each point of the contract (rl/envs/contract.py), "ok: …" or "FAILS: …", and exits with 0 where all
hold, 1 where one does not, 2 where the environment cannot be made.
"""

import argparse
import sys
import warnings
from collections.abc import Callable

from rl import envs, start
from rl.envs.contract import POINTS, ContractError, Subject
from rl.errors import EpisodeError, in_one_line


def breach(point: Callable[[Subject], None], subject: Subject) -> str | None:
    """What is wrong with an environment at one point of the contract, one line; None where the point holds."""
    try:
        point(subject)
    except ContractError as error:
        return " ".join(str(error).split())
    except EpisodeError as error:
        return f"episode {error.index}: {in_one_line(error.__cause__ or error)}"
    except (Exception, SystemExit) as error:
        return in_one_line(error)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Check the environment that the command line names, and print a line for each point: the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rl.envs.check", description="Hold an environment against what training and evaluation rely on."
    )
    parser.add_argument("name", help="package.module:Id, found from the present folder or PYTHONPATH; or a built-in id")
    parser.add_argument("--env-config-path", help="the environment's configuration file, where it takes one")
    typed = parser.parse_args(arguments)
    if sys.flags.optimize:
        print(f"{parser.prog}: Python leaves out assertions; expected no -O and no PYTHONOPTIMIZE", file=sys.stderr)
        return 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, which are no breaches
        try:
            subject = Subject(typed.name, envs.options(typed.name, typed.env_config_path))
        except Exception as error:
            print(f"{parser.prog}: {in_one_line(error)}", file=sys.stderr)
            return 2
        broken = False
        for point in POINTS:
            found = breach(point, subject)
            sentence = (point.__doc__ or point.__name__).rstrip(".")
            print(f"ok: {sentence}" if found is None else f"FAILS: {sentence}: {found}", flush=True)
            broken |= found is not None
    return int(broken)


def program() -> int:
    """As `main`, whatever becomes of the standard streams."""
    start.open_streams()
    try:
        try:
            status = main()
        except SystemExit as ended:  # argparse's
            status = int(ended.code or 0)
        sys.stdout.flush()
    except OSError as error:
        if start.settle(sys.stdout):
            raise
        start.complain(f"rl.envs.check: standard output: {error.strerror}")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(program())

"""Hold an environment against what training and evaluation rely on.

python -m rl.envs.check package.module:Id

prints a line for each point of the contract (rl/envs/contract.py), "ok: …" or "FAILS: …", and exits with 0 where all
hold, 1 where one does not, 2 where the environment cannot be made.
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from rl import envs
from rl.envs.adapter import sys_exit_as_error
from rl.envs.contract import POINTS, ContractError, Subject
from rl.errors import EpisodeError, UserError


def breach(point: Callable[[Subject], None], subject: Subject) -> str | None:
    """What is wrong with an environment at one point of the contract, one line; None where the point holds."""
    try:
        with sys_exit_as_error(subject.name):
            point(subject)
    except EpisodeError as error:
        return f"episode {error.index}: {described(error.__cause__ or error)}"
    except Exception as error:
        return described(error)
    return None


def described(error: BaseException) -> str:
    """An exception in one line, with the place in the user's code that raised it."""
    text = " ".join(str(error).split())
    if isinstance(error, ContractError | UserError):
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{type(error).__name__}: {text} ({frames[-1].filename}, line {frames[-1].lineno})"


def main(arguments: list[str] | None = None) -> int:
    """Check the environment that the command line names, and print a line for each point: the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rl.envs.check", description="Hold an environment against what training and evaluation rely on."
    )
    parser.add_argument("name", help="package.module:Id, found from the present folder or PYTHONPATH; or a built-in id")
    parser.add_argument("--env-config-path", help="the environment's configuration file, where it takes one")
    typed = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, which are no breaches
        try:
            subject = Subject(typed.name, envs.options(typed.name, typed.env_config_path))
        except Exception as error:
            print(f"{parser.prog}: {described(error)}", file=sys.stderr)
            return 2
        broken = False
        for point in POINTS:
            found = breach(point, subject)
            sentence = (point.__doc__ or point.__name__).rstrip(".")
            print(f"ok: {sentence}" if found is None else f"FAILS: {sentence}: {found}", flush=True)
            broken |= found is not None
    return int(broken)


if __name__ == "__main__":
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
    sys.exit(main())

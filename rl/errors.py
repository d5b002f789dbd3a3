"""Errors that are the user's to mend."""

import sys


class UserError(Exception):
    """Bad input. Its text is one line: what, where, and what was expected. main and test exit with status 2."""


def exit_status(program, run):
    """The exit status of a program: what `run()` returns, 2 for bad input, 130 for Ctrl-C, each told in one line.

    Args:
        program: its name, to begin the line with.
        run: function without arguments.
    """
    try:
        return run()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130

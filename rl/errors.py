"""Errors that are the user's to mend."""

import traceback
from typing import SupportsIndex


class UserError(Exception):
    """Bad input. Its text is one line: what, where, and what was expected. Programs exit with its `status`."""

    status = 2


class EpisodeError(Exception):
    """An exception in one episode of a vector environment, its cause.

    Args:
        index: the episode's place in the vector environment.
        place: task, episode and step, once they are known.
    """

    def __init__(self, index: SupportsIndex, place: str = "") -> None:
        super().__init__(index, place)
        self.index, self.place = index, place


def in_one_line(error: BaseException) -> str:
    """An exception that may be the user's code's, in one line: its kind, its text, and the place that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith("<")
    ]  # fmt: skip
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "no place known"
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}) in {place}; expected code that leaves the program running"
    text = " ".join(text_of(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text} ({place})"


def text_of(error: BaseException | None) -> str:
    """The text of an exception, whose own code can fail to make one."""
    try:
        return str(error)
    except Exception as another:
        return f"no text, which ended in a {type(another).__name__}"

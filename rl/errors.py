"""Errors that are the user's to mend."""

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

"""Errors that are the user's to mend."""


class UserError(Exception):
    """Bad input. Its text is one line: what, where, and what was expected. main and test exit with status 2."""

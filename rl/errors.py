"""Errors that are the user's to mend."""


class UserError(Exception):
    """Bad input: its text is one line that says what, where, and what was expected. main and test exit with status 2."""

"""The one exception that a command turns into a line and exit status 2."""


class InputError(Exception):
    """The user gave something wrong. The message is one line: what, and what was expected."""

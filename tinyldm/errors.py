"""The one exception that a command turns into a line and exit status 2."""


class InputError(Exception):
    """Something that the user gave is wrong; the message is one line that names it and says what was expected."""

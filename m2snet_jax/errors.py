"""The one error that a user's own mistake raises."""


class InputError(ValueError):
    """Something the user gave (a flag, a config key, a file, a folder) cannot be used.

    The message is one line that names the culprit, says what was found and what to do.
    Commands print it without a stack trace and exit with status 2.
    """

"""The one error that a user's own mistake raises."""


class InputError(ValueError):
    """Something the user gave (a flag, a config key, a file, a folder) cannot be used.

    The message names the culprit, says what was found and what to do, in one line; only where files must be fetched by
    hand does it go on with where they come from and where they belong.
    Commands print it without a stack trace and exit with status 2.
    """

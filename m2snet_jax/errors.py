"""The one error that a user's own mistake raises."""

import contextlib


class InputError(ValueError):
    """Something the user gave (a flag, a config key, a file, a folder) cannot be used.

    The message names the culprit, says what was found and what to do, in one line; only where files must be fetched by
    hand does it go on with where they come from and where they belong.
    Commands print it without a stack trace and exit with status 2.
    """


@contextlib.contextmanager
def reading(path, kind, explain=lambda reason: None):
    """Turns whatever goes wrong while a file is read into an InputError that names it.

    For libraries that raise nearly anything on a damaged file.

    Args:
        path: the file.
        kind: what it is to be, as 'DICOM'.
        explain: from the library's words, in one line, to what is said in their place; None where nothing better is
            known.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except Exception as error:
        reason = ' '.join(str(error).split())
        better = explain(reason) or f'cannot be read as {kind} ({reason}); replace or remove it'
        raise InputError(f'{path}: {better}') from None

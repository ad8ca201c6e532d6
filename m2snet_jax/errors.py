"""The one error that a user's own mistake raises."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


class InputError(ValueError):
    """Something the user gave (a flag, a config key, a file, a folder) cannot be used.

    The message says in one line what was found, where, and what to do; more lines follow only for files that must be
    downloaded by hand. Commands print it without a stack trace and exit with status 2.
    """


@contextlib.contextmanager
def reading(path: str | Path, kind: str, explain: Callable[[str], str | None] = lambda reason: None) -> Iterator[None]:
    """Turns any error while a file is read, since libraries raise many kinds, into an InputError that names the file.

    `kind` is the expected format, e.g. 'DICOM'. `explain` takes a library's message, in one line, and returns a better
    one or None.
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

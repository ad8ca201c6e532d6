"""The library of Google Cloud Storage: its client, the objects of a bucket, and what is tried again.

Only this folder uses the library, and imports it when a bucket is named.
"""

import contextlib
import datetime
import email.utils
import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging

from m2snet_jax.errors import InputError

PATIENCE = 120  # seconds for which is tried again, by default
LONGEST_PAUSE, TIMEOUT, THREADS = 60, 60, 8  # seconds, seconds without an answer, transfers at once
_CREDENTIALS = (
    'no credentials that can be used ({}); run `gcloud auth application-default login`, or set '
    'GOOGLE_APPLICATION_CREDENTIALS to the file of a service account'
)
_Value = TypeVar('_Value')
_clock = {'ahead': 0.0}
_said = {'at': -1e9}


def library(given: str) -> Any:
    """Returns the library, Google's `storage`.

    Raises:
        InputError: it is missing; the message begins with `given`.
    """
    try:
        from google.cloud import storage  # pyright: ignore
    except ImportError:
        raise InputError(
            f"{given}: a bucket needs optional packages; pip install 'm2snet_jax[cloud]', or '.[cloud]' in a clone"
        ) from None
    return storage


@functools.cache
def storage_client() -> Any:
    """Returns the client that all calls of this process share.

    Raises:
        InputError: no credentials.
    """
    storage = library('gs://')
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

    try:  # no call that is made here needs a project
        client = storage.Client(project=os.environ.get('GOOGLE_CLOUD_PROJECT') or 'unused')
    except GoogleAuthError as error:
        raise InputError(f'gs://: {_CREDENTIALS.format(reason(error))}') from None
    client._http.hooks['response'].append(_note_time)
    return client


def _note_time(response, *_, **__):
    with contextlib.suppress(TypeError, ValueError):
        there = email.utils.parsedate_to_datetime(response.headers.get('Date'))
        _clock['ahead'] = (there - datetime.datetime.now(datetime.UTC)).total_seconds()
    return response


def server_time() -> datetime.datetime:
    """Returns the time by the clock of the last answer of the server, since the clocks of computers differ."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=_clock['ahead'])


def object_at(bucket: str, name: str) -> Any:
    """Returns an object of a bucket, which need not exist; nothing is asked yet."""
    return storage_client().bucket(bucket).blob(name)


def patiently(
    action: Callable[[], _Value], what: str, seconds: float | None = None, missing: str | None = None
) -> _Value:
    """Returns what an action returns; one that fails for a passing reason is repeated, with growing pauses.

    Raises:
        InputError: no permission, no bucket, no credentials; or a passing reason for `seconds`, by default PATIENCE.
    """
    from google.api_core import exceptions  # pyright: ignore[reportMissingImports]
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

    seconds, pause, begun = PATIENCE if seconds is None else seconds, 1.0, time.monotonic()
    while True:
        try:
            return action()
        except InputError:
            raise
        except exceptions.NotFound as error:
            if missing is None and 'bucket' not in str(error).lower():
                raise
            raise InputError(f'{missing or what}: cannot be found; make it, or correct the name') from None
        except exceptions.PreconditionFailed:
            raise
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise InputError(f'{what}: no permission ({reason(error)}); grant it, or use another account') from None
        except Exception as error:
            if isinstance(error, GoogleAuthError) and not getattr(error, 'retryable', False):
                raise InputError(f'{what}: {_CREDENTIALS.format(reason(error))}') from None
            if not _passes(error):
                raise InputError(f'{what}: cannot be used ({reason(error)})') from None
            if time.monotonic() - begun + pause > seconds:
                raise InputError(f'{what}: no answer for {seconds / 60:.0f} min ({reason(error)})') from None
            _say_again(what, error, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _say_again(what, error, pause):
    """Logs that something is tried again, one line for all that fail at the same time."""
    now = time.monotonic()
    if now - _said['at'] >= min(pause, 1.0) * 0.9:
        _said['at'] = now
        logging.warning('%s: %s; again in %.0f s', what, reason(error), pause)


def _passes(error):
    """Whether an error may pass: of the server, of the connection, or of damaged bytes."""
    import requests
    from google.api_core import exceptions  # pyright: ignore[reportMissingImports]
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # pyright: ignore[reportMissingImports]

    if isinstance(error, GoogleAuthError):
        return error.retryable
    if isinstance(error, InvalidResponse):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    kinds = (exceptions.ServerError, exceptions.TooManyRequests, DataCorruption)
    others = (requests.exceptions.RequestException, ConnectionError, TimeoutError)
    return isinstance(error, (*kinds, *others)) or getattr(error, 'code', None) == 408


def reason(error: Exception) -> str:
    """Returns an error in one short line."""
    text = ' '.join(str(getattr(error, 'message', None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else f'{text[:200]}…'

"""The commands, one module each. A module has `main(argv) → exit status`, `argv[0]` being the command's name."""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from m2snet_jax.config import check_key, expand_paths, find_config, flatten, load_config
from m2snet_jax.errors import InputError
from m2snet_jax.storage import REFUSALS, finish, local_path, with_addresses

# The flags of all commands that hold a path; the keys are in `config.PATH_KEYS`, and all words are paths.
PATH_FLAGS = (
    'golden', 'images', 'maps', 'masks', 'model', 'output', 'reference', 'root', 'table', 'weights', 'workdir',
)  # fmt: skip
WRITTEN_FLAGS = ('output', 'table', 'workdir')
NOT_OPENED = (errno.EMFILE, errno.ELOOP, errno.ENAMETOOLONG)


class CommandLine(NamedTuple):
    """What a command was given.

    Attributes:
        config: the ConfigDict with the changes of `--config.key=value`; None for a command without.
        config_name: the value of `--config`, None where it was not given.
        flags: the command's own flags, a FlagValues.
        words: the arguments that are not flags.
    """

    config: Any
    config_name: Any
    flags: Any
    words: list[str]


def parse(
    argv: list[str],
    about: str | None,
    define: Callable[[flags.FlagValues], None] | None = None,
    *,
    config: str | None = '',
    words: bool = False,
    load: Callable[[str], Any] = load_config,
) -> CommandLine:
    """Parses the arguments of a command.

    `--config=NAME[:variant]` names a file or one of ours, `--config.key=value` changes a key, `none` unsets an optional
    one, `--root` is short for `--config.data.root`.

    Args:
        argv: the command's name and its arguments.
        about: shown by `--help`, above the flags.
        define: defines the command's own flags.
        config: the default of `--config`; '' where it must be given; None for a command that takes none.
        words: whether arguments that are not flags are allowed.
        load: returns the config of a name.

    Raises:
        InputError: an unknown flag or key, a value that does not fit, or an argument that is not allowed.
        SystemExit: after `--help`.
    """
    values = flags.FlagValues()
    if config is not None:
        flags.DEFINE_string('root', None, 'short for --config.data.root', flag_values=values)
    if define:
        define(values)
    if '--help' in argv or '-h' in argv:
        print(_help(about, values, config, 'config' if load is load_config else 'study'))
        raise SystemExit(0)
    name, loaded, arguments = None, None, argv
    if config is not None:
        name, arguments = _take_config(argv)
        if not (name or config):
            raise InputError('--config is missing: name a file, or one of ours, as --config=quickstart')
        loaded = load(name or config)
        arguments = _take_keys(arguments, loaded)
        config_flags.DEFINE_config_dict('config', loaded, flag_values=values, sys_argv=arguments)
    elif given := [word for word in argv[1:] if _flag(word)[0].partition('.')[0] in ('config', 'root')]:
        raise InputError(f'{given[0]}: {argv[0]} takes no config')
    try:
        found = values(arguments)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(' '.join(str(error).split())) from None
    if found and not words:
        raise InputError(f'{found[0]}: not understood; flags start with --')
    for flag in PATH_FLAGS:
        if flag in values and (given := values[flag].value) and given is not True:  # `study --table` is a switch
            several = isinstance(given, list)
            written = flag in WRITTEN_FLAGS
            fetched = flag != 'root'  # the data are fetched once the config is checked
            paths = [
                str(local_path(path, f'--{flag}', written=written, fetched=fetched))
                for path in (given if several else [given])
            ]
            values[flag].value = paths if several else paths[0]
    if loaded is not None:
        if values.root is not None:
            loaded.data.root = values.root
        expand_paths(loaded)
    return CommandLine(loaded, name, values, [str(local_path(word, written=True)) for word in found])


def _help(about, values, config, kind):
    """Returns what `--help` shows: `about`, and all flags in one list, which absl would divide by module."""
    parts, listed = [(about or '').strip()], flags.FlagValues()
    if config is not None:
        parts.append('configs/default.py describes every key of --config.')
        wanted = f'name or file of the {kind}' + ('' if config else '; required')
        flags.DEFINE_string('config', None, wanted, flag_values=values)
    for name in values:
        listed[name] = values[name]
    if len(listed):
        parts.append(f'flags:\n{listed.get_help("  ", include_special_flags=False)}')
    return '\n\n'.join(parts)


def define_models(values: flags.FlagValues) -> None:
    """Defines the flags of the commands that predict: which models, flips, temperature."""
    flags.DEFINE_multi_string(
        'model', [], 'folder of a run, a file of weights, or a pattern of these; several give one mean map',
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum('tta', 'none', ('none', 'flips'), 'average over the image and its flips', flag_values=values)
    flags.DEFINE_bool('calibrated', False, 'use the temperature that calibrate stored', flag_values=values)


def load_predictor(values: Any, config: Any, model: Any = None) -> Any:
    """Returns the Predictor that the flags of `define_models` name; says on stderr how several sizes are averaged.

    `model` is the path of one of the models, by default it is of all.
    """
    from m2snet_jax.prediction.predictor import load_model

    predictor = load_model(model or values.model, config=config, calibrated=values.calibrated)
    predictor.flips = values.tta == 'flips'
    if len(predictor.sizes) > 1:
        sizes = ' and '.join(map(str, predictor.sizes))
        print(f'note: models run at {sizes} pixels: maps are averaged at the size of each image', file=sys.stderr)
    return predictor


def run_name(config_name: str) -> str:
    """Returns a config's name for folders: `kvasir` or `kvasir-paper`."""
    path, variant = find_config(config_name)
    return f'{path.stem}-{variant}' if variant else path.stem


def run(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Runs a command's body and returns its exit status.

    An InputError is printed as one line and gives status 2; a full disk or another refusal of the system, one line and
    1; Ctrl-C, one line and 130.
    """
    use_any_console()
    try:
        try:
            status = main(argv) or 0
        finally:  # after --help too
            sys.stdout.flush()
            finish()
        return status
    except InputError as error:
        return _ended(with_addresses(f'error: {error}'), 2)
    except KeyboardInterrupt:
        return _ended('interrupted', 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, e.g. `head`, has closed the pipe
        return _ended(None, 1)
    except OSError as error:
        if error.errno not in (*REFUSALS, *NOT_OPENED):
            raise
        name = 'the output' if error.filename is None else os.fsdecode(error.filename)
        return _ended(f'error: {name}: cannot be read or written ({error.strerror})', 1)


def _ended(line, status):
    """Prints a line to stderr, if it can be written, and returns the status; what stdout refuses is dropped."""
    for stream, text in ((sys.stderr, line), (sys.stdout, None)):
        try:
            if text is not None:
                print(text, file=stream)
            stream.flush()
        except OSError:  # else Python tries again at its end, and fails
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


def use_any_console() -> None:
    """Makes stdout and stderr replace what their encoding lacks, e.g. '…' in ASCII, instead of failing."""
    codecs.register_error('m2snet_jax', _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='m2snet_jax')


def _replaced(error):
    """Returns what is printed instead: bytes of a file name that is not UTF-8 as \\xNN, else the nearest ASCII or ?."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    pieces = []
    for character in error.object[error.start : error.end]:
        near = unicodedata.normalize('NFKD', character).encode('ascii', 'ignore').decode()
        pieces.append(f'\\x{ord(character) - 0xDC00:02x}' if '\udc80' <= character <= '\udcff' else near or '?')
    return ''.join(pieces), error.end


def _flag(word):
    """Returns (name, value) of `--name=value`; the name is '' where the word is not a flag."""
    name, _, value = word.partition('=')
    return (name.lstrip('-') if name.startswith('-') else ''), value


def _take_config(argv):
    """Returns the value of `--config`, or None, and the other arguments."""
    name, others, arguments = None, [], iter(argv)
    for argument in arguments:
        if _flag(argument)[0] == 'config':
            name = _flag(argument)[1] if '=' in argument else next(arguments, '')
        else:
            others.append(argument)
    return name, others


def _take_keys(arguments, config):
    """Checks that every `--config.key` exists, applies `none`, and returns the other arguments."""
    optional = {key for key, value in flatten(load_config('default')).items() if value is None}
    others = []
    for argument in arguments:
        flag, value = _flag(argument)
        key = flag.removeprefix('config.')
        if flag.startswith('config.'):
            check_key(key, config)
            if value == 'none' and (key in optional or not isinstance(flatten(config)[key], str)):
                if key not in optional:
                    raise InputError(f'--config.{key}=none: this key cannot be unset')
                with config.unlocked():
                    config.update_from_flattened_dict({key: None})
                others = [other for other in others if _flag(other)[0] != flag]  # the last counts
                continue
        others.append(argument)
    return others


@contextlib.contextmanager
def prompt_exit() -> Iterator[None]:
    """Ends the program at once, when the block raises SystemExit or any other exception, if programs are compiled then.

    Nothing can interrupt a compiler, which may need minutes.
    """
    try:
        yield
    except BaseException as error:
        programs = sys.modules.get('m2snet_jax.devices.programs')  # not imported here: it imports jax
        if programs is None or not programs.is_compiling():
            raise
        status = error.code if isinstance(error, SystemExit) else 1
        if isinstance(error, KeyboardInterrupt):
            status = programs.INTERRUPTED
        elif not isinstance(error, SystemExit):
            traceback.print_exception(error)
        programs.leave(status if isinstance(status, int) else int(status is not None))

"""One word of the command line a file. Each has `main(argv) → exit status`, `argv[0]` being the command's name."""

import difflib
import os
import sys

from absl import flags
from ml_collections import config_flags

from m2snet_jax.config import find_config, flatten, load_config
from m2snet_jax.errors import InputError


def parse(argv, about, define=None, load=load_config):
    """Parses the command line of a command that takes a config.

    `--config=NAME[:variant]` names a file or one of ours, `--config.key=value` changes a key, `none` unsets an optional
    one, `--root` is short for `--config.data.root`.

    Args:
        argv: the command's name and its arguments.
        about: shown by `--help`, above the flags.
        define: function that gets a FlagValues and defines the command's own flags in it.
        load: function from the value of `--config` to the config.

    Returns:
        (config, flags, words that are no flags).

    Raises:
        InputError: an unknown flag or key, or a value that does not fit; one line.
        SystemExit: after `--help`.
    """
    values = flags.FlagValues()
    flags.DEFINE_string('root', None, 'short for --config.data.root', flag_values=values)
    if define:
        define(values)
    if '--help' in argv or '-h' in argv:
        print(about.strip(), 'Every key of --config stands in configs/default.py.', sep='\n\n')
        print(values.get_help(include_special_flags=False))
        raise SystemExit(0)
    name, arguments = _take_config(argv)
    config = load(name)
    arguments = _take_none(arguments, config)
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
    try:
        words = values(arguments)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(' '.join(str(error).split())) from None
    if values.root is not None:
        config.data.root = values.root
    return config, values, words


def config_name(argv):
    """Returns the config that a command line names, as `kvasir` or `kvasir-paper`."""
    path, variant = find_config(_take_config(argv)[0])
    return f'{path.stem}-{variant}' if variant else path.stem


def run(main, argv):
    """Runs a command's body and returns its exit status, a user's mistake being one line and status 2."""
    try:
        try:
            return main(argv) or 0
        finally:
            sys.stdout.flush()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads, as `head`, has seen enough; nothing is left to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _take_config(argv):
    """Returns the value of `--config` and the other arguments."""
    name, others, arguments = None, [], iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition('=')
        if flag in ('--config', '-config'):
            name = value if equals else next(arguments, '')
        else:
            others.append(argument)
    if not name:
        raise InputError('--config is missing: name a file, or one of ours, as --config=quickstart')
    return name, others


def _take_none(arguments, config):
    """Checks that every `--config.key` exists, applies `none`, and returns the other arguments."""
    known, optional = flatten(config), {key for key, value in flatten(load_config('default')).items() if value is None}
    others = []
    for argument in arguments:
        flag, _, value = argument.lstrip('-').partition('=')
        key = flag.removeprefix('config.')
        if flag.startswith('config.') and key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f'; did you mean {near[0]}?' if near else '; the keys stand in configs/default.py'
            raise InputError(f'--config.{key}: no such key{hint}')
        if flag.startswith('config.') and value == 'none' and (key in optional or not isinstance(known[key], str)):
            if key not in optional:
                raise InputError(f'--config.{key}=none: this key cannot be unset')
            with config.unlocked():
                config.update_from_flattened_dict({key: None})
        else:
            others.append(argument)
    return others

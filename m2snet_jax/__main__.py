"""The command line: `python -m m2snet_jax COMMAND …`."""

import ast
import importlib
import pkgutil
import platform
import sys

from m2snet_jax.devices.memory import restart_with_huge_pages


def main(argv: list[str]) -> int:
    """Runs one command and returns its exit status."""
    from m2snet_jax import commands

    commands.use_any_console()

    names = sorted(module.name.replace('_', '-') for module in pkgutil.iter_modules(commands.__path__))
    usage = 'usage: python -m m2snet_jax COMMAND … | --version'
    if len(argv) > 1 and argv[1] in ('-h', '--help'):
        print(usage, '', 'commands; each takes --help:', '', *(f'{name:15}{_about(name)}' for name in names), sep='\n')
        return 0
    usage += f'\ncommands: {", ".join(names)} (each takes --help)'
    if len(argv) < 2:
        print(usage, file=sys.stderr)
        return 2
    if argv[1] == '--version':
        print(_versions())
        return 0
    if argv[1] not in names:
        print(f'error: no command {argv[1]!r}\n{usage}', file=sys.stderr)
        return 2
    return importlib.import_module(f'm2snet_jax.commands.{argv[1].replace("-", "_")}').main(argv[1:])


def _about(name):
    """Returns the first line of a command's docstring; its module, which imports libraries, is not run."""
    source = pkgutil.get_data('m2snet_jax.commands', f'{name.replace("-", "_")}.py') or b''
    return (ast.get_docstring(ast.parse(source)) or '').partition('\n')[0]


def _versions():
    """Returns as text what a report needs: versions, system and device."""
    from m2snet_jax import __version__
    from m2snet_jax.devices.mesh import describe, make_mesh
    from m2snet_jax.storage import versions

    try:
        device = describe(make_mesh())
    except RuntimeError as error:  # the reason is part of the report
        device = f'none ({error})'
    found = {**versions(), 'm2snet_jax': __version__}
    found |= {'Python': platform.python_version(), 'platform': platform.platform(), 'device': device}
    return '\n'.join(f'{name}: {value}' for name, value in found.items())


if __name__ == '__main__':
    restart_with_huge_pages()
    from m2snet_jax.commands import prompt_exit

    with prompt_exit():
        sys.exit(main(sys.argv))

"""`python -m m2snet_jax --version`: what a report of a bug needs."""

import importlib.metadata
import pkgutil
import platform
import re

import jax

from m2snet_jax import __main__, __version__, commands


def versions(capsys):
    assert __main__.main(['m2snet_jax', '--version']) == 0
    return dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())


def test_version_names_packages_system_and_device(capsys):
    found = versions(capsys)
    assert found['m2snet_jax'] == __version__
    for package in ('jax', 'flax', 'optax', 'numpy'):
        assert found[package] == importlib.metadata.version(package)
    assert found['Python'] == platform.python_version()
    assert found['platform'] == platform.platform()
    assert jax.devices()[0].device_kind in found['device']


def test_version_is_printed_where_jax_finds_no_device(capsys, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, 'device_count', fail)
    assert versions(capsys)['device'] == "none (Unable to initialize backend 'cuda')"


def test_usage_names_the_flag_and_says_what_each_command_does(capsys):
    assert __main__.main(['m2snet_jax', '--help']) == 0
    usage = capsys.readouterr().out
    assert '--version' in usage
    for module in pkgutil.iter_modules(commands.__path__):
        about = importlib.import_module(f'm2snet_jax.commands.{module.name}').__doc__.splitlines()[0]
        name = module.name.replace('_', '-')
        assert f'\n{name} {about}' in re.sub(' +', ' ', usage)

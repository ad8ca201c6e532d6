"""The wheel and the lock file: packages, versions, and what is installed from a wheel works away from the clone."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from data_trees import image_of, write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from m2snet_jax.export.files import CONVERTER

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
SETTINGS = PROJECT['tool']['setuptools']
TRAINING = [
    '--config.batch=2', '--config.steps=2', '--config.data.size=48', '--config.data.sizes=(48,)',
    '--config.data.count=4', '--config.data.test_count=2', '--config.loss.lossnet=0', '--config.evaluate.bootstrap=20',
]  # fmt: skip


def test_every_package_is_listed():
    places = {'m2snet_jax': ROOT / 'm2snet_jax', 'm2snet_jax.configs': ROOT / 'configs'}
    expected = {
        '.'.join([name, *path.parent.relative_to(folder).parts])
        for name, folder in places.items()
        for path in folder.rglob('*.py')
    }
    assert set(SETTINGS['packages']) == expected
    assert SETTINGS['package-dir'] == {'m2snet_jax.configs': 'configs'}


def requirements_of(name):
    """The requirements of a file, without its comments and the files that it includes."""
    lines = [line.partition('#')[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith('-')]


def locked():
    """The version of each package that the lock file names."""
    lines = (ROOT / '.ci' / 'requirements.lock').read_text().splitlines()
    pairs = [line.split('==') for line in lines if not line.startswith('#')]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_lock_names_a_version_in_the_range_of_every_requirement():
    untested = ('wandb', 'tpu-check', 'gpu-check')  # no test needs these extras
    extras = PROJECT['project']['optional-dependencies']
    required = [*requirements_of('requirements.txt'), *requirements_of('requirements-dev.txt'), CONVERTER]
    required += [line for name, lines in extras.items() if name not in untested for line in lines]
    versions = locked()
    for requirement in map(Requirement, required):
        assert versions.get(canonicalize_name(requirement.name), '0') in requirement.specifier, requirement


@pytest.fixture
def clone(tmp_path):
    """The files of this tree alone, as a clone has them."""
    ignored = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', 'build', 'dist', 'runs', 'tests')
    return shutil.copytree(ROOT, tmp_path / 'clone', ignore=ignored)


@pytest.mark.slow
def test_a_wheel_of_a_clone_trains_and_predicts_in_a_fresh_environment(clone, tmp_path):
    away = tmp_path / 'away'
    away.mkdir()
    hidden = ('PYTHONPATH', 'VIRTUAL_ENV')
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {'TFDS_DATA_DIR': str(away / 'tfds'), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}

    def call(*words):
        done = subprocess.run(words, cwd=away, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f'{" ".join(words)}\n{done.stdout}\n{done.stderr}'
        return done.stdout

    call(sys.executable, '-m', 'venv', 'builder')
    call('builder/bin/pip', 'install', '--quiet', 'build')
    call('builder/bin/python', '-m', 'build', '--outdir', 'dist', str(clone))
    (wheel,), (source,) = (list((away / 'dist').glob(pattern)) for pattern in ('*.whl', '*.tar.gz'))
    assert source.stat().st_size < 5e6
    call(sys.executable, '-m', 'venv', 'user')
    call('user/bin/pip', 'install', '--quiet', str(wheel))
    python = 'user/bin/python'
    where = call(python, '-c', 'import m2snet_jax; print(m2snet_jax.__file__)')
    assert Path(where.strip()).is_relative_to(away / 'user')

    call(python, '-m', 'm2snet_jax', 'train', '--config=quickstart', '--workdir=run', *TRAINING)
    assert json.loads((away / 'run' / 'scores' / 'summary.json').read_text())['step'] == 2
    for number in range(2):
        write(away / 'images' / f'{number}.png', image_of(number))
    call(python, '-m', 'm2snet_jax', 'predict', '--model=run', '--images=images', '--output=maps')
    assert sorted(path.name for path in (away / 'maps').glob('*.png')) == ['0.png', '1.png']

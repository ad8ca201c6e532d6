"""The house rules that a reader relies on: who may import whom, and which file knows which library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'm2snet_jax'
FILES = sorted(PACKAGE.rglob('*.py'))
# Imports go down this list, never up and, but for a room's own files and the pairs below, never sideways.
TIERS = (
    ('commands', '__main__'),
    ('parity',),
    ('training', 'export'),
    ('report', 'evaluation'),
    ('predictor', 'plot'),
    ('data', 'weights'),
    ('metrics', 'model', 'images', 'mesh', 'hosts', 'study'),
    ('dicom', 'nifti'),
    ('config', 'window', 'errors', 'published', 'memory'),
)
SIDEWAYS = {
    ('config', 'errors'),
    ('config', 'window'),
    ('window', 'errors'),
    ('report', 'evaluation'),
    ('commands', '__main__'),
    ('__main__', 'commands'),
}
# library: the only places that may import it
HOMES = {
    'orbax': ('weights/checkpoint.py',),
    'grain': ('data/',),
    'tensorflow_datasets': ('data/',),
    'tensorboardX': ('training/logs.py',),
    'wandb': ('training/logs.py',),
    'gradio': ('commands/demo.py',),
    'onnx': ('export/',),
    'jax2onnx': ('export/',),
    'onnxruntime': ('export/',),
    'safetensors': ('weights/',),
    'gdown': ('data/download.py',),
    'pydicom': ('dicom.py',),
    'highdicom': ('dicom.py',),
    'nibabel': ('nifti.py',),
    'jax.sharding': ('mesh.py',),
}


def imports(path):
    """The dotted names that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == 'm2snet_jax':
                yield from (f'm2snet_jax.{alias.name}' for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def tier(name):
    return next(number for number, rooms in enumerate(TIERS) if name in rooms)


@pytest.mark.parametrize('path', FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_go_down(path):
    here = room(path)
    if here == '__init__':
        return
    for name in imports(path):
        if not name.startswith('m2snet_jax.'):
            continue
        there = name.split('.')[1]
        if there != here:
            assert tier(here) < tier(there) or (here, there) in SIDEWAYS, f'{here} imports {there}'


@pytest.mark.parametrize('path', FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_each_library_has_its_home(path):
    here = str(path.relative_to(PACKAGE))
    for name in imports(path):
        for library, homes in HOMES.items():
            if name == library or name.startswith(f'{library}.'):
                assert here.startswith(homes), f'{here} imports {library}'


def test_the_whole_package_imports_neither_tensorflow_nor_torch():
    modules = ['.'.join(('m2snet_jax', *path.relative_to(PACKAGE).with_suffix('').parts)) for path in FILES]
    names = [name.removesuffix('.__init__') for name in modules if not name.endswith('__main__')]
    program = (
        f'import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n'
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert loaded.isdisjoint({'tensorflow', 'torch'}), loaded"
    )
    subprocess.run([sys.executable, '-c', program], check=True, cwd=PACKAGE.parent)


def test_help_is_quick_because_it_imports_no_jax():
    program = (
        'import sys\nfrom m2snet_jax.commands.train import main\n'
        "try: main(['train', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '--workdir' in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, '-m', 'm2snet_jax', 'report', '--help']
    process = subprocess.Popen(command, cwd=PACKAGE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.communicate()[1] == b''
    assert process.returncode == 1

"""The house rules that a reader relies on: who may import whom, and which file knows which library."""

import ast
import collections
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'm2snet_jax'
FILES = sorted(PACKAGE.rglob('*.py'))
# Nothing but `commands` imports these: delete one and the rest still works.
LEAVES = ('benchmark', 'demo', 'export', 'parity', 'planning', 'study')
# Imports go down this list, never up and, but for a room's own files and the pairs below, never sideways.
TIERS = (
    ('commands', '__main__'),
    LEAVES,
    ('training',),
    ('report',),
    ('evaluation',),
    ('measurement',),
    ('prediction',),
    ('build',),
    ('data', 'weights'),
    ('metrics', 'models', 'images', 'devices'),
    ('config_values',),
    ('config',),
    ('folder_lock', 'storage'),
    ('buckets',),
    ('errors',),
)
SIDEWAYS = {('commands', '__main__'), ('__main__', 'commands')}
# library: the only places that may import it
HOMES = {
    'orbax': ('weights/checkpoint.py',),
    'grain': ('data/',),
    'tensorflow_datasets': ('data/',),
    'tensorboardX': ('training/event_file.py',),
    'wandb': ('training/logs.py',),
    'gradio': ('demo/',),
    'onnx': ('export/',),
    'jax2onnx': ('export/',),
    'onnxruntime': ('export/',),
    'safetensors': ('weights/',),
    'gdown': ('data/download.py',),
    'pydicom': ('images/dicom.py', 'images/dicom_segmentation.py'),
    'highdicom': ('images/dicom_segmentation.py',),
    'nibabel': ('images/nifti.py',),
    'jax.sharding': ('devices/mesh.py', 'planning/chips.py'),
    'jinja2': ('report/',),
    'absl.flags': ('commands/',),
    'platformdirs': ('storage.py',),
    'google': ('buckets/',),
}
# A platform's name in code, or the choice by platform; comments and docstrings may name what they like.
PLATFORM = re.compile(r"platform_dependent|default_backend|'(cpu|gpu|cuda|tpu)'")
PLATFORM_HOMES = ('devices/', 'planning/', 'models/kernels.py', 'models/initial_weights.py')


def imports(path):
    """The dotted names that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module in ('m2snet_jax', 'absl'):
                yield from (f'{node.module}.{alias.name}' for alias in node.names)


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
        if not name.startswith('m2snet_jax.') or name == 'm2snet_jax.__version__':
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


@pytest.mark.parametrize('path', FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_platforms_are_named_in_few_places(path):
    if str(path.relative_to(PACKAGE)).startswith(PLATFORM_HOMES):
        return
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in ast.walk(tree):  # without docstrings, which are the expressions that stand alone
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant('')
    found = PLATFORM.search(ast.unparse(tree))
    assert not found, found[0]


def test_no_two_files_share_a_name():
    names = collections.Counter(path.name for path in FILES if path.parent.name != 'commands')
    assert [name for name, count in names.items() if count > 1 and name != '__init__.py'] == []


@pytest.mark.parametrize('leaves', [LEAVES, *(pytest.param((leaf,), marks=pytest.mark.slow) for leaf in LEAVES)])
def test_without_leaf_rooms_the_rest_works(leaves, tmp_path):
    """Rooms and the commands that use them are gone; every other module is imported, and a command runs."""
    shutil.copytree(PACKAGE, tmp_path / 'm2snet_jax', ignore=shutil.ignore_patterns('__pycache__', *leaves))
    shutil.copytree(PACKAGE.parent / 'configs', tmp_path / 'configs')
    for leaf in leaves:
        commands = [path for path in (tmp_path / 'm2snet_jax' / 'commands').glob('*.py') if uses(path, leaf)]
        assert commands
        for path in commands:
            path.unlink()
    left = sorted((tmp_path / 'm2snet_jax').rglob('*.py'))
    assert not [path for path in left if set(leaves) & set(path.relative_to(tmp_path).parts)]
    done = run_python(IMPORT_ALL.format(module_names(left, tmp_path)), tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_python('from m2snet_jax.__main__ import main; main(["", "validate", "--config=nowhere"])', tmp_path)
    assert 'error: --config=nowhere: no such file' in done.stderr


def uses(path, leaf):
    return any(name.startswith(f'm2snet_jax.{leaf}.') for name in imports(path))


def module_names(paths, top):
    names = ('.'.join(path.relative_to(top).with_suffix('').parts) for path in paths)
    return [name.removesuffix('.__init__') for name in names if not name.endswith('__main__')]


IMPORT_ALL = """
import importlib, sys
for name in {!r}:
    importlib.import_module(name)
loaded = {{name.partition('.')[0] for name in sys.modules}}
assert loaded.isdisjoint({{'tensorflow', 'torch'}}), loaded
"""


def run_python(program, folder):
    return subprocess.run([sys.executable, '-c', program], cwd=folder, capture_output=True, text=True)


def test_the_whole_package_imports_neither_tensorflow_nor_torch():
    done = run_python(IMPORT_ALL.format(module_names(FILES, PACKAGE.parent)), PACKAGE.parent)
    assert done.returncode == 0, done.stderr


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

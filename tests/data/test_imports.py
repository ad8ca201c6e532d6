import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'm2snet_jax'
FILES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_no_file_imports_tensorflow_or_torch(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.partition('.')[0])
    assert imported.isdisjoint({'tensorflow', 'torch'})


def test_the_data_room_runs_without_tensorflow(tmp_path):
    program = """
import sys
import m2snet_jax.data.datasets as datasets, m2snet_jax.data.inspection, m2snet_jax.benchmark.throughput
from m2snet_jax.config import load_config
config = load_config('quickstart', **{'data.count': 2, 'data.test_count': 1})
dataset = datasets.open_dataset(config)
assert dataset.train[0]['image'].ndim == 3
loaded = {name.partition('.')[0] for name in sys.modules}
assert loaded.isdisjoint({'tensorflow', 'torch'}), loaded
"""
    environment = {'PATH': '', 'TFDS_DATA_DIR': str(tmp_path), 'PYTHONPATH': str(PACKAGE.parent), 'HOME': str(tmp_path)}
    subprocess.run([sys.executable, '-c', program], check=True, env=environment)

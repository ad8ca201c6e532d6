"""Names of files that are not UTF-8, or that macOS has decomposed: kept in records, sheets and pages."""

import csv
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from m2snet_jax.__main__ import main
from m2snet_jax.data.manifest import hash_of, to_csv
from m2snet_jax.evaluation.sheets import read_per_image

NAMES = [os.fsdecode(b'caf\xe9'), unicodedata.normalize('NFD', 'Läsion'), 'b']


@pytest.fixture
def folder(tmp_path):
    """Images and masks under odd names; the masks are their own maps."""
    for name in NAMES:
        for kind in ('images', 'masks'):
            path = tmp_path / 'data' / kind / f'{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.pad(np.full((10, 12), 255, np.uint8), ((4 + len(name), 20), (9, 15)))
            try:
                Image.fromarray(pixels).save(path)
            except (OSError, UnicodeEncodeError):
                pytest.skip('this file system has no such names')
    return tmp_path / 'data'


def test_the_manifest_keeps_them():
    row = dict.fromkeys(('split', 'height', 'width', 'foreground', 'image_sha256', 'mask_sha256'), '1')
    text = to_csv([{**row, 'name': name} for name in NAMES])
    assert [line['name'] for line in csv.DictReader(text.splitlines())] == NAMES
    assert len(hash_of([{**row, 'name': NAMES[0]}])) == 64


def test_they_are_validated_and_scored(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    assert main(['m2snet_jax', 'validate', f'--root={folder}', f'--output={tmp_path / "look"}']) in (0, 1)
    assert 'manifest' in capsys.readouterr().out
    words = [
        f'--maps={folder / "masks"}',
        f'--masks={folder / "masks"}',
        f'--images={folder / "images"}',
        '--config.evaluate.bootstrap=10',
    ]
    assert main(['m2snet_jax', 'evaluate', *words, f'--output={tmp_path / "scores"}']) == 0
    names = {row['name'] for row in read_per_image(tmp_path / 'scores')}
    assert names == {'caf%E9', unicodedata.normalize('NFC', NAMES[1]), 'b'}  # valid text, whatever the bytes
    assert main(['m2snet_jax', 'report', str(tmp_path / 'scores')]) == 0

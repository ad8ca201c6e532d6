"""Damaged files end in the program's own errors, whatever is wrong with them: no stack trace, no hang, no crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

MEMORY = 2000  # MiB of a child, a quarter of it libraries
SIZE = 24, 30


def levels():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.where((y - 10) ** 2 + (x - 12) ** 2 < 40, 200, 20).astype(np.uint8) + (x % 7).astype(np.uint8)


def write_whole(folder):
    """Writes one file of each format."""
    folder.mkdir()
    grey = levels()
    colour = np.dstack([grey, grey // 2, 255 - grey])
    Image.fromarray(np.where(grey > 100, 255, 0).astype(np.uint8)).save(folder / 'whole.png')
    files = {'rgb.png': colour, 'rgba.png': np.dstack([colour, grey]), 'b.bmp': colour, 'j.jpg': colour}
    for name, array in files.items():
        Image.fromarray(array).save(folder / name)
    Image.fromarray(grey > 100).save(folder / 'bits.png')
    Image.fromarray(grey).quantize(16).save(folder / 'palette.png')
    Image.fromarray(grey).save(folder / 'g.gif')
    Image.fromarray(colour).save(folder / 'w.webp')
    Image.fromarray(colour).save(folder / 'two.jp2')
    Image.fromarray(grey).save(folder / 'p.pgm')
    Image.fromarray(colour).save(folder / 'lzw.tif', compression='tiff_lzw')
    Image.fromarray(colour).save(folder / 'jpeg.tif', compression='jpeg')
    cv2.imwrite(str(folder / 'deep.png'), grey * np.uint16(257))
    cv2.imwrite(str(folder / 'deepcolour.png'), colour * np.uint16(257))
    tifffile.imwrite(folder / 'float.tif', grey / np.float32(255))
    tifffile.imwrite(folder / 'tagged.tif', colour, photometric='minisblack', planarconfig='contig')
    tifffile.imwrite(folder / 'double.tif', grey / 255, compression='zlib')
    np.save(folder / 'array.npy', grey)
    clinical(folder, grey)
    return sorted(path for path in folder.iterdir() if not path.name.startswith('whole.'))


def clinical(folder, grey):
    """Writes files of clinics, where the packages for them are installed."""
    try:
        import nibabel
        import pydicom
        from pydicom.data import get_testdata_file
    except ImportError:
        return
    volume = nibabel.Nifti1Image(np.repeat(grey.T[:, :, None], 2, axis=2), np.diag([-1, -1, 1, 1]))
    for name in ('whole.nii', 'whole.nii.gz', 'v.nii', 'z.nii.gz'):
        nibabel.save(volume, folder / name)
    dataset = pydicom.dcmread(get_testdata_file('CT_small.dcm'))
    dataset.Rows, dataset.Columns, dataset.PixelData = *SIZE, grey.astype(np.int16).tobytes()
    dataset.save_as(folder / 'c.dcm')
    (folder / 'nopreamble').write_bytes((folder / 'c.dcm').read_bytes()[132:])
    packed = pydicom.dcmread(get_testdata_file('MR_small_jp2klossless.dcm'))
    packed.save_as(folder / 'packed.dcm')


def damaged(content, rng):
    """Returns a file cut off, or with a few bytes changed; half of the changes are in its first 300 bytes."""
    if rng.random() < 0.3:
        return content[: rng.integers(0, len(content))]
    changed = bytearray(content)
    within = min(300, len(content)) if rng.random() < 0.5 else len(content)
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(0, within)] = rng.integers(0, 256)
    return bytes(changed)


def write_damaged(top, whole, per_file, rng):
    folder = top / 'damaged'
    folder.mkdir()
    for path in whole:
        for number in range(per_file):
            name = f'{path.name.partition(".")[0]}x{number}{path.name[len(path.name.partition(".")[0]) :]}'
            (folder / name).write_bytes(damaged(path.read_bytes(), rng))


def run_child(top):
    """Runs the commands on the damaged files below `top` in a child, checks how it ends, and returns what it found."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'TFDS_DATA_DIR': str(top / 'prepared'), 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, str(Path(__file__).parent / 'damaged.py'), str(top)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Traceback' not in done.stderr, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['memory'] < MEMORY
    assert found['images'] in (0, 1, 2)
    assert found['masks'] in (0, 1, 2)
    assert found['evaluate'] in (0, 1, 2)
    return found


def test_a_few_damaged_files_of_each_format(tmp_path):
    whole = write_whole(tmp_path / 'whole')
    write_damaged(tmp_path, whole, 2, np.random.default_rng(1))
    found = run_child(tmp_path)
    assert found['predict'][0] > 0
    assert found['predict'][1] > 0


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(8))
def test_two_thousand_damaged_files(tmp_path, seed):
    whole = write_whole(tmp_path / 'whole')
    write_damaged(tmp_path, whole, -(-250 // len(whole)), np.random.default_rng((2, seed)))
    assert len(list((tmp_path / 'damaged').iterdir())) >= 250
    run_child(tmp_path)

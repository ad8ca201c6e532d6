"""The table of what is read as what: every row is tried, and the page on data has the same one."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from m2snet_jax.errors import InputError
from m2snet_jax.images import formats
from m2snet_jax.images.decisions import image_reading, map_reading, mask_reading

GREY = np.random.default_rng(0).integers(0, 256, (8, 9), dtype=np.uint8)
GREY[0, :2] = 0, 255
BITS = GREY > 127
BINARY = np.uint8(255) * BITS
COLOUR = np.random.default_rng(1).integers(0, 256, (8, 9, 3), dtype=np.uint8)
TWELVE = np.round(GREY / 255 * 4095).astype(np.uint16)
REFUSED = 'refused'
RED = BINARY[..., None] * np.array([1, 0, 0], np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 3


def image(array, mode=None, **options):
    picture = Image.fromarray(array) if mode is None else Image.fromarray(array, mode)
    return lambda path: picture.save(path, **options)


def palette(indices, *colours):
    picture = Image.fromarray(indices.astype(np.uint8), 'P')
    picture.putpalette([level for colour in colours for level in colour])
    return lambda path: picture.save(path)


def white_is_0(array):
    return lambda path: tifffile.imwrite(path, array, photometric='miniswhite')


def rgb(levels):
    return np.repeat(levels[:, :, None], 3, axis=2)


def luma(colour):
    red, green, blue = colour.astype(int).transpose(2, 0, 1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # ITU-R 601 in 16-bit fixed point


THREE = np.array([(0, 0, 0), (0, 90, 0), (90, 0, 0)], np.uint8)
ALPHA = np.dstack([np.zeros_like(COLOUR), GREY])
# first cell of a row: (ending, writer, as an image, as a mask, as a map, words of the notes on images, masks and maps)
ROWS = {
    '1 bit': ('.png', image(BITS), rgb(BINARY), BINARY, BINARY, '', '', ''),
    'grey of 2, 4 or 8 bits': ('.png', image(GREY), rgb(GREY), GREY, GREY, '', '', ''),
    'above 8 bits, values to 255': (
        *('.tif', image(GREY.astype(np.int32)), rgb(GREY), GREY, GREY),
        *('nothing above 255', '', 'nothing above 255'),
    ),
    '16 bits, nothing above 2ⁿ−1': (
        '.png', image(TWELVE), rgb(GREY), REFUSED, np.rint(TWELVE / 257), '12 bits: 4095 is white', '', '',
    ),
    '16 bits': ('.png', image(GREY * np.uint16(257)), rgb(GREY), GREY, GREY, '', '', ''),
    'floats, 0 to 1': ('.tif', image(GREY / np.float32(255)), rgb(GREY), GREY, GREY, '1 is white', '', '1 is white'),
    'negative, NaN, above 65535': ('.tif', image(GREY - np.float32(9)), REFUSED, REFUSED, REFUSED, '', '', ''),
    'colour': ('.png', image(COLOUR), COLOUR, REFUSED, luma(COLOUR), '', '', 'in colour'),
    'black and one colour': ('.png', image(RED), RED, BINARY, BINARY, '', 'one colour (ff0000)', 'one colour'),
    '0 and one other level': (
        '.png', image(BINARY // 2), rgb(BINARY // 2), BINARY, BINARY, '', '0 and 127', '0 and 127',
    ),
    'palette of greys': (
        '.png', palette(BITS, (255, 255, 255), (0, 0, 0)), rgb(255 - BINARY), 255 - BINARY, 255 - BINARY, '', '', '',
    ),
    'palette of colours': (
        *('.png', palette(GREY % 3, *THREE.tolist())),
        *(THREE[GREY % 3], GREY % 3, luma(THREE[GREY % 3]), '', '', 'in colour'),
    ),
    'alpha': ('.png', image(ALPHA), ALPHA[:, :, :3], GREY, GREY, '', 'alpha channel', 'alpha channel'),
    'file says that 0 is white': ('.tif', white_is_0(255 - GREY), rgb(GREY), GREY, GREY, '', '', ''),
    'colour tagged as grey': (
        *('.tif', lambda path: tifffile.imwrite(path, COLOUR, photometric='minisblack', planarconfig='contig')),
        *(COLOUR, REFUSED, luma(COLOUR), '', '', 'in colour'),
    ),
    'turned by EXIF': (
        '.png', image(GREY, exif=TURNED), rgb(GREY[::-1, ::-1]), GREY[::-1, ::-1], GREY[::-1, ::-1], '', '', '',
    ),
    'several pages or frames': (
        *('.gif', image(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)])),
        *(REFUSED, REFUSED, REFUSED, '', '', ''),
    ),
    '`.npy`': ('.npy', lambda path: np.save(path, BITS), rgb(BINARY), BINARY, BINARY, '', '', ''),
}  # fmt: skip
ELSEWHERE = {'DICOM, NIfTI'}  # in test_clinic_readings.py


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith('| ')]
    start = next(number for number, line in enumerate(lines) if line.startswith('| file | as an image'))
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[start + 1 :]]
    return [row for row in rows if len(row) == 5]


def test_every_row_is_tried_and_the_page_has_the_same():
    rows = rows_of(formats.__doc__)
    assert {row[0] for row in rows} == {*ROWS, *ELSEWHERE}
    page = (Path(__file__).parents[2] / 'docs/data.md').read_text(encoding='utf-8')
    assert rows_of(page) == rows


@pytest.mark.parametrize('row', ROWS)
def test_a_row(tmp_path, row):
    ending, write, *expected = ROWS[row]
    path = tmp_path / f'a{ending}'
    write(path)
    readings = image_reading([path]), mask_reading([path], 1), map_reading([path])
    read = (
        lambda reading: formats.read_image(path, None, reading),
        lambda reading: formats.read_mask(path, reading),
        lambda reading: formats.read_map(path, reading),
    )
    for reading, function, levels, words in zip(readings, read, expected[:3], expected[3:], strict=True):
        if isinstance(levels, str):
            if not reading.problem:
                with pytest.raises(InputError, match=r'a\.\w+: '):
                    function(reading)
        else:
            np.testing.assert_array_equal(function(reading), levels)
            assert bool(words) == bool(reading.notes)
            assert words in ' '.join(reading.notes)

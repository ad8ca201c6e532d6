import os
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import read_image, read_mask, write_png
from m2snet_jax.images.raster import deep_kind

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (7, 9, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
GREY_16 = RANDOM.integers(0, 65536, (7, 9), dtype=np.uint16)
COLOUR_16 = RANDOM.integers(0, 65536, (7, 9, 3), dtype=np.uint16)


def saved(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_colour_grey_and_one_bit(tmp_path):
    np.testing.assert_array_equal(read_image(saved(tmp_path / 'a.png', COLOUR)), COLOUR)
    np.testing.assert_array_equal(read_image(saved(tmp_path / 'b.bmp', COLOUR)), COLOUR)
    grey = saved(tmp_path / 'c.tif', GREY)
    np.testing.assert_array_equal(read_image(grey), np.repeat(GREY[:, :, None], 3, 2))
    np.testing.assert_array_equal(read_mask(grey), GREY)
    bits = saved(tmp_path / 'd.png', GREY > 99)
    np.testing.assert_array_equal(read_mask(bits), np.uint8(255) * (GREY > 99))
    np.testing.assert_array_equal(read_image(bits)[:, :, 2], np.uint8(255) * (GREY > 99))


def test_alpha_is_dropped_and_colour_masks_are_luma(tmp_path):
    transparent = np.dstack([COLOUR, np.full((7, 9), 3, np.uint8)])
    path = saved(tmp_path / 'a.png', transparent)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    red, green, blue = COLOUR.astype(int).transpose(2, 0, 1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # ITU-R 601 in 16-bit fixed point
    np.testing.assert_array_equal(read_mask(path), luma)
    equal = np.dstack([GREY] * 3 + [np.zeros((7, 9), np.uint8)])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / 'b.png', equal)), GREY)


@pytest.mark.parametrize('ending', ['png', 'tif'])
def test_sixteen_bits_are_divided_by_257(tmp_path, ending):
    path = tmp_path / f'grey.{ending}'
    cv2.imwrite(str(path), GREY_16)
    np.testing.assert_array_equal(read_image(path)[:, :, 1], np.round(GREY_16 / 257))
    np.testing.assert_array_equal(read_mask(path), np.round(GREY_16 / 257))
    path = tmp_path / f'colour.{ending}'
    cv2.imwrite(str(path), COLOUR_16[:, :, ::-1])
    np.testing.assert_array_equal(read_image(path), np.round(COLOUR_16 / 257))


@pytest.mark.parametrize('byteorder', ['<', '>'])
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_sixteen_bit_colour_in_planes(tmp_path, byteorder, compression):
    path = tmp_path / 'planes.tif'
    options = {'photometric': 'rgb', 'planarconfig': 'separate', 'byteorder': byteorder, 'compression': compression}
    tifffile.imwrite(path, COLOUR_16.transpose(2, 0, 1), **options)
    np.testing.assert_array_equal(read_image(path), np.round(COLOUR_16 / 257))
    assert deep_kind(path) == 'integers'
    tifffile.imwrite(path, COLOUR.transpose(2, 0, 1), **options)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert deep_kind(path) == ''


def test_sixteen_bits_with_small_values(tmp_path):
    path = tmp_path / 'indices.png'
    cv2.imwrite(str(path), (GREY % 4).astype(np.uint16))
    np.testing.assert_array_equal(read_mask(path), GREY % 4)
    np.testing.assert_array_equal(read_image(path)[:, :, 0], GREY % 4)  # nothing above 255: levels of 8 bits


def test_palettes(tmp_path):
    indices = GREY % 3
    coloured = Image.fromarray(indices, 'P')
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    coloured.save(tmp_path / 'classes.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'classes.png'), indices)
    assert set(np.unique(read_image(tmp_path / 'classes.png')[:, :, 0])) == {0, 128}

    shrunk = Image.fromarray(indices % 2, 'P')
    shrunk.putpalette([255, 255, 255, 0, 0, 0])  # white first, as tools that shrink files may order it
    shrunk.save(tmp_path / 'levels.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'levels.png'), 255 * (indices % 2 == 0))

    shrunk.save(tmp_path / 'transparent.png', transparency=b'\x00\x80')
    np.testing.assert_array_equal(read_image(tmp_path / 'transparent.png')[:, :, 0], 255 * (indices % 2 == 0))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('array', [COLOUR, GREY, GREY_16], ids=['colour', 'grey', 'grey16'])
def test_exif_rotation(tmp_path, orientation, array):
    exif = Image.Exif()
    exif[0x0112] = orientation
    saved(tmp_path / 'a.png', array, exif=exif)
    turned = {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.swapaxes(0, 1),
        6: lambda pixels: np.rot90(pixels, -1),
        7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda pixels: np.rot90(pixels),
    }[orientation](array)
    if array.dtype == np.uint16:
        turned = np.round(turned / 257)
    image, mask = read_image(tmp_path / 'a.png'), read_mask(tmp_path / 'a.png')
    np.testing.assert_array_equal(image, turned if turned.ndim == 3 else np.repeat(turned[:, :, None], 3, 2))
    if array.ndim == 2:
        np.testing.assert_array_equal(mask, turned)


def test_exif_rotation_of_sixteen_bit_colour(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), COLOUR_16)
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = exif.tobytes()[6:]  # without the prefix that only JPEG has
    data = (tmp_path / 'a.png').read_bytes()
    body = b'eXIf' + chunk
    header_end = 8 + 25  # signature and IHDR
    chunk = struct.pack('>I', len(chunk)) + body + struct.pack('>I', zlib.crc32(body))
    (tmp_path / 'b.png').write_bytes(data[:header_end] + chunk + data[header_end:])
    np.testing.assert_array_equal(read_image(tmp_path / 'b.png'), np.rot90(read_image(tmp_path / 'a.png'), -1))


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = saved(tmp_path / 'a.jpg', np.kron(COLOUR, np.ones((9, 9, 1), np.uint8)))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize('read', [read_image, read_mask])
def test_unusable_files_are_named(tmp_path, read):
    whole = saved(tmp_path / 'whole.png', RANDOM.integers(0, 256, (64, 64), dtype=np.uint8)).read_bytes()
    (tmp_path / 'truncated.png').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'text.png').write_text('no image')
    jpeg = saved(tmp_path / 'whole.jpg', RANDOM.integers(0, 256, (64, 64), dtype=np.uint8)).read_bytes()
    (tmp_path / 'truncated.jpg').write_bytes(jpeg[: len(jpeg) // 2])
    saved(tmp_path / 'negative.tif', RANDOM.random((4, 4)).astype(np.float32) - 0.5)
    saved(tmp_path / 'pages.tif', GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    for name in 'truncated.png', 'empty.png', 'text.png', 'truncated.jpg', 'negative.tif', 'pages.tif', 'missing.png':
        with pytest.raises(InputError, match=f'{name}: ') as caught:
            read(tmp_path / name)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('name', 'package'), [('a.dcm', 'pydicom'), ('a.nii', 'nibabel'), ('a.nii.gz', 'nibabel')])
def test_files_of_clinics_name_the_package_that_they_need(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    (tmp_path / name).write_bytes(b'')
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match=rf"need {package}: pip install '{package}>="):
            read(tmp_path / name)


@pytest.mark.parametrize('array', [COLOUR, GREY], ids=['colour', 'grey'])
def test_write_png(tmp_path, array):
    write_png(tmp_path / 'a.png', array)
    with Image.open(tmp_path / 'a.png') as image:
        np.testing.assert_array_equal(np.asarray(image), array)
    assert os.listdir(tmp_path) == ['a.png']


def test_write_png_leaves_nothing_half_written(tmp_path):
    write_png(tmp_path / 'a.png', GREY)
    with pytest.raises(TypeError):
        write_png(tmp_path / 'a.png', GREY.astype(np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / 'a.png'), GREY)
    with pytest.raises(InputError, match=r'a\.png/b\.png: cannot be written'):
        write_png(tmp_path / 'a.png' / 'b.png', GREY)
    assert os.listdir(tmp_path) == ['a.png']

"""One set of pixels in every mode, depth and container is read as the same levels, in training as in scoring."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from m2snet_jax.data.pairs import Pair
from m2snet_jax.data.source import Source, decide_reading, mask_levels, read_contents
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.image_scores import MaskFile
from m2snet_jax.images.decisions import image_reading, map_reading, mask_reading
from m2snet_jax.images.formats import read_image, read_map
from m2snet_jax.images.reading import UNDECIDED, from_json
from m2snet_jax.metrics import hard

VOC = [0, 0, 0, 128, 0, 0] + [0] * 762


def blob(seed):
    y, x = np.mgrid[:11, :13]
    return (y - 3 - seed) ** 2 + (x - 4 - seed) ** 2 < 8


def grey(seed):
    levels = np.random.default_rng(seed).integers(0, 256, (11, 13), dtype=np.uint8)
    levels[0, :2] = 0, 255
    return levels


def pillow(array, path, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def palette(indices, path, colours, **options):
    image = Image.fromarray(indices.astype(np.uint8), 'P')
    image.putpalette(colours)
    image.save(path, **options)


def png(path, stored, bits):
    """A grey PNG of 1, 2 or 4 bits."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    height, width = stored.shape
    digits = np.unpackbits(stored.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
    rows = b''.join(b'\0' + np.packbits(row).tobytes() for row in digits)
    header = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    body = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + body)


def coloured(mask, *colour):
    return (mask[..., None] * np.array(colour)).astype(np.uint8)


def over(mask, alpha):
    return np.dstack([np.full((*mask.shape, 3), alpha, np.uint8), np.uint8(255) * mask])


MASKS = {  # ending and writer of a mask of truth values
    'one bit': ('.png', lambda m, p: pillow(m, p)),
    'one bit tif': ('.tif', lambda m, p: pillow(m, p)),
    'one bit, 0 is white': ('.tif', lambda m, p: tifffile.imwrite(p, ~m, photometric='miniswhite')),
    **{f'0/{v}': ('.png', lambda m, p, v=v: pillow(m * np.uint8(v), p)) for v in (1, 2, 17, 128, 200, 254, 255)},
    '2 bits, 0/1': ('.png', lambda m, p: png(p, m, 2)),
    '4 bits, 0/15': ('.png', lambda m, p: png(p, m * 15, 4)),
    'bmp': ('.bmp', lambda m, p: pillow(m * np.uint8(255), p)),
    'gif': ('.gif', lambda m, p: pillow(m * np.uint8(255), p)),
    'webp': ('.webp', lambda m, p: pillow(m * np.uint8(255), p, 'RGB', lossless=True)),
    'pgm': ('.pgm', lambda m, p: pillow(m * np.uint8(255), p)),
    'lzw': ('.tif', lambda m, p: pillow(m * np.uint8(255), p, compression='tiff_lzw')),
    '0 is white': ('.tif', lambda m, p: tifffile.imwrite(p, ~m * np.uint8(255), photometric='miniswhite')),
    '0 is white, 16 bits': ('.tif', lambda m, p: tifffile.imwrite(p, ~m * np.uint16(65535), photometric='miniswhite')),
    'palette of colours': ('.png', lambda m, p: palette(m, p, VOC)),
    'palette, black last': ('.png', lambda m, p: palette(~m, p, [255, 0, 0, 0, 0, 0])),
    'palette, index 38': ('.png', lambda m, p: palette(m * 38, p, [1, 2, 3] + [9, 200, 9] * 255)),
    'palette of greys, white first': ('.png', lambda m, p: palette(~m, p, [255, 255, 255, 0, 0, 0])),
    'palette gif': ('.gif', lambda m, p: palette(m, p, VOC)),
    'white': ('.png', lambda m, p: pillow(coloured(m, 255, 255, 255), p)),
    **{
        str(c): ('.png', lambda m, p, c=c: pillow(coloured(m, *c), p))
        for c in ((255, 0, 0), (128, 0, 0), (0, 255, 0), (255, 255, 0), (1, 2, 200))
    },
    'rgba': ('.png', lambda m, p: pillow(np.dstack([coloured(m, 0, 0, 255), np.full(m.shape, 255, np.uint8)]), p)),
    'alpha over black': ('.png', lambda m, p: pillow(over(m, 0), p)),
    'alpha over white': ('.png', lambda m, p: pillow(over(m, 255), p)),
    'grey and alpha': ('.png', lambda m, p: pillow(np.dstack([m * np.uint8(255), np.full(m.shape, 255, np.uint8)]), p)),
    **{
        f'{np.dtype(t)} 0/{v}': ('.tif', lambda m, p, t=t, v=v: tifffile.imwrite(p, (m * v).astype(t)))
        for t, v in [
            (np.uint16, 1), (np.uint16, 255), (np.uint16, 300), (np.uint16, 4095), (np.uint16, 65535), (np.int16, 1),
            (np.int32, 1), (np.int32, 255), (np.uint32, 70000), (np.int8, 1), (np.float16, 1), (np.float32, 1),
            (np.float32, 255), (np.float64, 1), (np.uint64, 255),
        ]
    },
    '16 bits, big-endian': ('.tif', lambda m, p: tifffile.imwrite(p, m * np.uint16(65535), byteorder='>')),
    '16 bits png': ('.png', lambda m, p: pillow(m * np.uint16(65535), p)),
    'colour tagged as grey': (
        '.tif',
        lambda m, p: tifffile.imwrite(p, coloured(m, 255, 255, 255), photometric='minisblack', planarconfig='contig'),
    ),
    **{f'npy {np.dtype(t)}': ('.npy', lambda m, p, t=t: np.save(p, m.astype(t))) for t in (bool, np.uint8, np.float32)},
}  # fmt: skip


@pytest.mark.parametrize('kind', MASKS)
def test_two_levels_are_one_set_of_lesion_pixels_in_training_as_in_scoring(tmp_path, kind):
    ending, write = MASKS[kind]
    truth = [blob(0), blob(2), np.zeros_like(blob(0))]  # the last has no lesion
    pairs = []
    for number, mask in enumerate(truth):
        pillow(np.zeros((11, 13, 3), np.uint8), tmp_path / f'image{number}.png')
        write(mask, tmp_path / f'{number}{ending}')
        pairs.append(Pair(str(number), tmp_path / f'image{number}.png', (tmp_path / f'{number}{ending}',)))
    source = Source('', str(tmp_path), {'train': pairs})
    decide_reading(source)
    assert source.reading.problem == ''
    assert from_json(source.reading.to_json()) == source.reading
    for pair, mask in zip(pairs, truth, strict=True):
        contents = read_contents(pair, source)
        assert contents.faults == []
        np.testing.assert_array_equal(contents.mask, np.uint8(255) * mask)
        scored = MaskFile(pair.masks[0], source).read()
        np.testing.assert_array_equal(hard.prepare(np.zeros_like(scored), scored)[1], mask)


@pytest.mark.parametrize('kind', MASKS)
def test_maps_of_two_levels_are_read_as_masks(tmp_path, kind):
    ending, write = MASKS[kind]
    for number in (0, 2):
        write(blob(number), tmp_path / f'{number}{ending}')
    paths = [tmp_path / f'{number}{ending}' for number in (0, 2)]
    reading = map_reading(paths)
    for path, number in zip(paths, (0, 2), strict=True):
        np.testing.assert_array_equal(read_map(path, reading), np.uint8(255) * blob(number))


def white_is_0(path, values):
    tifffile.imwrite(path, values, photometric='miniswhite')


def twelve_bits(levels):
    return np.round(levels / 255 * 4095).astype(np.uint16)


def minus(levels):
    return 255 - levels


IMAGES = {  # ending and writer of grey levels
    'grey': ('.png', lambda g, p: pillow(g, p)),
    'bmp': ('.bmp', lambda g, p: pillow(g, p)),
    'rgb': ('.tif', lambda g, p: pillow(g, p, 'RGB')),
    'rgba': ('.png', lambda g, p: pillow(np.dstack([g, g, g, minus(g)]), p)),
    'grey and alpha': ('.png', lambda g, p: pillow(np.dstack([g, minus(g)]), p)),
    'palette': ('.png', lambda g, p: palette(minus(g), p, [v for i in range(255, -1, -1) for v in (i, i, i)])),
    '0 is white': ('.tif', lambda g, p: white_is_0(p, minus(g))),
    '16 bits': ('.png', lambda g, p: pillow(g * np.uint16(257), p)),
    '16 bits, 0 is white': ('.tif', lambda g, p: white_is_0(p, minus(g) * np.uint16(257))),
    '12 bits in 16': ('.png', lambda g, p: pillow(twelve_bits(g), p)),
    '12 bits in 16, 0 is white': ('.tif', lambda g, p: white_is_0(p, twelve_bits(minus(g)))),
    '8 bits in 16': ('.tif', lambda g, p: pillow(g.astype(np.uint16), p)),
    'int32': ('.tif', lambda g, p: pillow(g.astype(np.int32), p)),
    'floats to 255': ('.tif', lambda g, p: pillow(g.astype(np.float32), p)),
    'floats to 1': ('.tif', lambda g, p: pillow(g.astype(np.float32) / 255, p)),
    'floats, 0 is white': ('.tif', lambda g, p: white_is_0(p, np.float32(minus(g) / 255))),
    'doubles': ('.tif', lambda g, p: tifffile.imwrite(p, g / 255)),
    'rgb of 16 bits': ('.tif', lambda g, p: tifffile.imwrite(p, np.dstack([g * np.uint16(257)] * 3))),
    'rgb of 12 bits': ('.tif', lambda g, p: tifffile.imwrite(p, np.dstack([twelve_bits(g)] * 3), photometric='rgb')),
    'colour tagged as grey': (
        '.tif',
        lambda g, p: tifffile.imwrite(p, np.dstack([g] * 3), photometric='minisblack', planarconfig='contig'),
    ),
    'planes': ('.tif', lambda g, p: tifffile.imwrite(p, np.stack([g] * 3), photometric='rgb', planarconfig='separate')),
    'planes tagged as grey': (
        '.tif',
        lambda g, p: tifffile.imwrite(p, np.stack([g] * 3), photometric='minisblack', planarconfig='separate'),
    ),
    'big tiff': ('.tif', lambda g, p: tifffile.imwrite(p, g, bigtiff=True)),
    'npy': ('.npy', lambda g, p: np.save(p, g)),
    'npy of floats': ('.npy', lambda g, p: np.save(p, g / 255)),
}  # fmt: skip


@pytest.mark.parametrize('kind', IMAGES)
def test_grey_levels_are_the_same_rgb(tmp_path, kind):
    ending, write = IMAGES[kind]
    paths = [tmp_path / f'{number}{ending}' for number in range(2)]
    dark = grey(1) // 40  # its range is that of the set
    for path, levels in zip(paths, (grey(0), dark), strict=True):
        write(levels, path)
    reading = image_reading(paths)
    for path, levels in zip(paths, (grey(0), dark), strict=True):
        np.testing.assert_array_equal(read_image(path, None, reading), np.repeat(levels[:, :, None], 3, axis=2))


def test_what_is_said_of_a_range(tmp_path):
    pillow(twelve_bits(grey(0)), tmp_path / 'a.png')
    pillow(grey(0).astype(np.float32) / 255, tmp_path / 'b.tif')
    pillow(grey(0), tmp_path / 'c.png')
    twelve, share = image_reading([tmp_path / name for name in ('a.png', 'b.tif', 'c.png')]).notes
    assert twelve == '1 images of more than 8 bits (integers) hold nothing above 4095, 12 bits: 4095 is white'
    assert share == '1 images of more than 8 bits (floats) hold nothing above 1: 1 is white'
    pillow(grey(0) * np.uint16(257), tmp_path / 'a.png')
    assert image_reading([tmp_path / 'a.png']).notes == ()
    assert image_reading([tmp_path / 'a.png'], '2048,4096') == UNDECIDED


def test_a_window_applies_to_images_of_more_than_8_bits_alone(tmp_path):
    pillow(twelve_bits(grey(0)), tmp_path / 'a.png')
    pillow(grey(0), tmp_path / 'b.png')
    expected = np.rint(255 * np.clip((twelve_bits(grey(0)) - 1000.0) / 1000, 0, 1))
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png', '1500,1000')[:, :, 1], expected)
    np.testing.assert_array_equal(read_image(tmp_path / 'b.png', '1500,1000')[:, :, 1], grey(0))
    with pytest.raises(InputError, match=r'a\.png: names no window for itself'):
        read_image(tmp_path / 'a.png', 'file')


def test_what_is_beyond_the_range_of_the_run_is_refused(tmp_path):
    pillow(twelve_bits(grey(0)), tmp_path / 'a.png')
    pillow(grey(0) * np.uint16(257), tmp_path / 'b.png')
    reading = image_reading([tmp_path / 'a.png'])
    again = image_reading([tmp_path / 'b.png'], None, reading)
    assert again == reading
    with pytest.raises(InputError, match=r'b\.png: holds values up to 65535, above 4095'):
        read_image(tmp_path / 'b.png', None, again)


@pytest.mark.parametrize('value', [-1, np.nan, np.inf, 70000])
def test_values_that_no_rule_covers_are_refused(tmp_path, value):
    values = np.ones((4, 4), np.float32)
    values[1, 1] = value
    pillow(values, tmp_path / 'a.tif')
    for read in (read_image, read_map):
        with pytest.raises(InputError, match=r'a\.tif: holds (values up to|NaN|negative)') as caught:
            read(tmp_path / 'a.tif')
        assert '\n' not in str(caught.value)


def test_maps_of_probabilities(tmp_path):
    shares = np.random.default_rng(0).random((11, 13)).astype(np.float32)
    shares[0, :4] = 0, 0.4999, 0.5, 1
    expected = np.rint(shares * 255)
    pillow(shares, tmp_path / 'a.tif')
    np.save(tmp_path / 'b.npy', shares)
    pillow(np.round(shares * 65535).astype(np.uint16), tmp_path / 'c.png')
    for name in ('a.tif', 'b.npy', 'c.png'):
        levels = read_map(tmp_path / name, map_reading([tmp_path / name]))
        assert np.abs(levels - expected).max() <= (name == 'c.png')
        assert levels[0, 1:4].tolist() == [127, 128, 255]
    faint = np.full((4, 4), 3000, np.uint16)  # a share of 65535, not of 4095
    pillow(faint, tmp_path / 'd.png')
    assert np.unique(read_map(tmp_path / 'd.png', map_reading([tmp_path / 'd.png', tmp_path / 'c.png']))) == [12]
    np.save(tmp_path / 'e.npy', np.stack([shares, 1 - shares], -1))
    both = read_map(tmp_path / 'e.npy', UNDECIDED, 2)
    np.testing.assert_array_equal(both[..., 0], expected)
    with pytest.raises(InputError, match=r'e\.npy: holds 2 maps; set --config\.data\.classes=2'):
        read_map(tmp_path / 'e.npy')


def test_levels_that_differ_between_masks(tmp_path):
    for number, level in enumerate((255, 128, 1)):
        pillow(blob(number) * np.uint8(level), tmp_path / f'{number}.png')
    paths = sorted(tmp_path.iterdir())
    reading = mask_reading(paths, 1)
    assert reading.notes == ('each mask holds 0 and one other level (255, 128), which is read as 255',)
    source = Source('', '', {}, reading=reading)
    for number, path in enumerate(paths):
        levels = mask_levels(MaskFile(path, source).read(), path, source)
        np.testing.assert_array_equal(levels, np.uint8(255) * blob(number))


def test_several_levels_stay_as_they_are(tmp_path):
    soft = np.random.default_rng(0).integers(0, 256, (11, 13), dtype=np.uint8)
    pillow(soft, tmp_path / 'a.png')
    pillow(blob(0) * np.uint8(128), tmp_path / 'b.png')
    reading = mask_reading([tmp_path / 'a.png', tmp_path / 'b.png'], 1)
    source = Source('', '', {}, reading=reading)
    np.testing.assert_array_equal(MaskFile(tmp_path / 'a.png', source).read(), soft)
    np.testing.assert_array_equal(MaskFile(tmp_path / 'b.png', source).read(), blob(0) * np.uint8(128))


def test_two_levels_without_0_are_asked_about(tmp_path):
    pillow(np.where(blob(0), 200, 100).astype(np.uint8), tmp_path / 'a.png')
    problem = mask_reading([tmp_path / 'a.png'], 1).problem
    assert 'two levels 100 and 200, and neither is 0' in problem
    assert """--config.data.colors="('646464','c8c8c8')" --config.data.classes=1""" in problem

"""DICOM: windows, what is shown of a frame, and what is refused."""

import re

import numpy as np
import pytest
from clinic_files import levels, pydicom
from pydicom.data import get_testdata_file

from m2snet_jax import InputError
from m2snet_jax.images.formats import addresses, read_image, read_mask
from m2snet_jax.images.windows import parse_window, windowed


def test_a_window_is_linear_between_its_ends():
    numbers = np.array([-3000, -1350, -600, 150, 3000, np.nan])
    np.testing.assert_array_equal(windowed(numbers, 'lung', None, 'ct'), [0, 0, 128, 255, 255, 0])
    np.testing.assert_array_equal(windowed(numbers, '-600,1500', None, 'ct'), [0, 0, 128, 255, 255, 0])
    np.testing.assert_array_equal(windowed(numbers, 'file', (0, 6000), 'ct')[:5], [0, 70, 102, 134, 255])


@pytest.mark.parametrize('text', ['lungs', '40', '40,0', '40,-80', '', '40,400,1'])
def test_an_unknown_window_is_refused_with_the_names(text):
    with pytest.raises(InputError, match=r'data.window=.*lung, mediastinum, abdomen, liver, bone, brain'):
        parse_window(text)


# DICOM in


def test_a_ct_is_rescaled_and_windowed():
    path = get_testdata_file('CT_small.dcm')
    units = pydicom.dcmread(path).pixel_array.astype(int) - 1024  # the file's slope is 1, its intercept -1024
    np.testing.assert_array_equal(read_image(path, 'abdomen')[:, :, 2], levels(units, 50, 400))
    with pytest.raises(InputError, match=r'CT_small.dcm: holds more than 8 bits; .*lung, mediastinum'):
        read_image(path)
    with pytest.raises(InputError, match='names no window'):
        read_image(path, 'file')


def test_a_window_of_the_file_itself():
    path = get_testdata_file('MR_small.dcm')
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read_image(path, 'file')[:, :, 0], levels(stored, 600, 1600))


def test_rescaling_of_a_frame(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file('CT_small.dcm'))
    stored = dataset.pixel_array
    values, window = pydicom.Dataset(), pydicom.Dataset()
    values.RescaleSlope, values.RescaleIntercept = 2, -50
    window.WindowCenter, window.WindowWidth = [1000, 1], [3000, 1]
    shared, frame = pydicom.Dataset(), pydicom.Dataset()
    shared.PixelValueTransformationSequence, frame.FrameVOILUTSequence = [values], [window]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], [frame]
    dataset.save_as(tmp_path / 'enhanced.dcm')
    shown = read_image(tmp_path / 'enhanced.dcm', 'file')[:, :, 0]
    np.testing.assert_array_equal(shown, levels(stored.astype(int) * 2 - 50, 1000, 3000))


@pytest.mark.filterwarnings('ignore:Expected explicit VR')  # the file says so of itself
def test_eight_bits_are_taken_as_stored_and_monochrome1_is_inverted(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file('image_dfl.dcm'))
    stored = dataset.pixel_array
    dataset.save_as(tmp_path / 'a.dcm')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.dcm')[:, :, 1], stored)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.dcm', 'lung')[:, :, 1], stored)
    np.testing.assert_array_equal(read_mask(tmp_path / 'a.dcm'), stored)
    dataset.PhotometricInterpretation = 'MONOCHROME1'
    dataset.save_as(tmp_path / 'b.dcm')
    np.testing.assert_array_equal(read_image(tmp_path / 'b.dcm')[:, :, 1], 255 - stored)


def test_colours(tmp_path):
    rgb = get_testdata_file('examples_rgb_color.dcm')
    np.testing.assert_array_equal(read_image(rgb), pydicom.dcmread(rgb).pixel_array)
    # One picture of ten bars, as RGB and, a little changed by JPEG, in three kinds of YBR; here are their middles.
    bars = read_image(get_testdata_file('SC_rgb_rle.dcm'))[5::10, 50].astype(int)
    assert bars[::2].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [192, 192, 192]]
    for kind in ('rgb_dcmtk_+eb+cy+n1', 'rgb_jpeg_dcmtk', 'ybr_full_422_uncompressed'):
        assert np.abs(read_image(get_testdata_file(f'SC_{kind}.dcm'))[5::10, 50] - bars).max() <= 5
    palette = pydicom.dcmread(get_testdata_file('examples_palette.dcm'))
    table = np.frombuffer(palette.GreenPaletteColorLookupTableData, '<u2') >> 8
    shown = read_image(get_testdata_file('examples_palette.dcm'))
    np.testing.assert_array_equal(shown[:, :, 1], table[palette.pixel_array])
    deep = get_testdata_file('SC_rgb_rle_16bit.dcm')
    np.testing.assert_array_equal(read_image(deep), np.rint(pydicom.dcmread(deep).pixel_array / 257))


def test_frames_have_addresses():
    path = get_testdata_file('examples_ybr_color.dcm')
    every = addresses(path)
    assert (len(every), every[29].name) == (30, '029')
    frames = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read_image(every[29]), frames[29])
    with pytest.raises(InputError, match=r'holds 30 images; name one, as .*examples_ybr_color.dcm/015'):
        read_image(path)
    with pytest.raises(InputError, match=r'dcm/030: .* holds 30 images'):
        read_image(f'{path}/030')


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('rtplan.dcm', 'holds no image (RT Plan Storage)'),
        ('liver_1frame.dcm', 'holds a segmentation'),
        ('MR_truncated.dcm', 'cannot be read as DICOM'),
        ('no_meta.dcm', 'cannot be read as DICOM'),
    ],
)
def test_what_is_no_image_is_named(name, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_image(get_testdata_file(name), 'file')
    assert '\n' not in str(caught.value)
    assert name in str(caught.value)


def test_a_compression_without_decoder_names_what_to_install(monkeypatch):
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, '_available', {})
    monkeypatch.setattr(JPEG2000LosslessDecoder, '_unavailable', {'pylibjpeg': ('pylibjpeg', 'pylibjpeg-openjpeg')})
    with pytest.raises(InputError, match=r'jp2klossless.dcm: .*JPEG 2000.* requires pylibjpeg.*pip install') as caught:
        read_image(get_testdata_file('MR_small_jp2klossless.dcm'), 'file')
    assert '\n' not in str(caught.value)

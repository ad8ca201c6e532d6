"""DICOM and NIfTI: what is seen of them, and results in the geometry of what came in."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_trees import assert_refused, config_of, names_of
from PIL import Image
from tiny_models import write_model

from m2snet_jax import InputError
from m2snet_jax.__main__ import main
from m2snet_jax.data import splits
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.images.formats import addresses, read_image, read_mask
from m2snet_jax.images.windows import parse_window, windowed
from m2snet_jax.prediction.folders import find_images, predict_files
from m2snet_jax.prediction.writer import Writer

pydicom = pytest.importorskip('pydicom', reason='an optional requirement: pip install .[clinic]')
nibabel = pytest.importorskip('nibabel', reason='an optional requirement: pip install .[clinic]')

from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

RANDOM = np.random.default_rng(0)
SHAPE = 5, 7, 6  # right to left, back to front, foot to head


class Marking:
    """A model that marks what is brighter than half; its maps are as large as the images."""

    classes, size, model_hash, window, config = 1, 8, 'a hash', '0,2000', None

    def probabilities(self, images):
        return [np.where(image[:, :, :1] > 127, 0.75, 0.25).astype(np.float32) for image in images]


class TwoClasses(Marking):
    """Marks the bright as class 2, all else as class 1."""

    classes = 2

    def probabilities(self, images):
        bright = super().probabilities(images)
        return [np.concatenate([np.full_like(one, 0.625), one], -1) for one in bright]


def predict(tmp_path, given, model=None, **options):
    model, output = model or Marking(), tmp_path / 'maps'
    images = find_images(given, output)
    return predict_files(model, images, Writer(output, model, **options), 2), output


def levels(numbers, centre, width):
    return np.rint(255 * np.clip((numbers - centre + width / 2) / width, 0, 1))


# Windows


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


# DICOM out


def make_ct_series(folder, count=4):
    """Writes slices of one series, each 5 mm above the last, in an order that names do not show."""
    folder.mkdir(parents=True)
    dataset = pydicom.dcmread(get_testdata_file('CT_small.dcm'))
    for number in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = [-158.1, -179.0, -75.7 + 5 * (number * 3 % count)]
        dataset.PixelData = np.roll(dataset.pixel_array, 9, number % 2).tobytes()
        dataset.save_as(folder / f'slice{number}.dcm')
    return sorted(folder.iterdir())


def test_a_series_gives_maps_and_one_segmentation_in_its_geometry(tmp_path):
    highdicom = pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    files = make_ct_series(tmp_path / 'ct')
    model = Marking()
    model.window = '0,600'
    (done, before, faults), output = predict(tmp_path, [tmp_path / 'ct'], model)
    assert (done, before, faults) == (4, 0, [])
    names = sorted(path.name for path in output.iterdir())
    assert names == ['model.json', 'slice0.png', 'slice0_seg.dcm', 'slice1.png', 'slice2.png', 'slice3.png']
    segmentation = highdicom.seg.segread(output / 'slice0_seg.dcm')
    sources = [pydicom.dcmread(path) for path in files]
    assert segmentation.SegmentSequence[0].SegmentLabel == 'lesion'
    assert segmentation.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert segmentation.PatientID == sources[0].PatientID
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == sources[0].ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == sources[0].PixelSpacing
    uids = [source.SOPInstanceUID for source in sources]
    masks = segmentation.get_pixels_by_source_instance(uids)[..., 0]
    assert masks.any()
    for source, mask in zip(sources, masks, strict=True):
        np.testing.assert_array_equal(mask, levels(source.pixel_array.astype(int) - 1024, 0, 600) > 127)
    places = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: list(
            frame.PlanePositionSequence[0].ImagePositionPatient
        )
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    }
    assert places == {source.SOPInstanceUID: list(source.ImagePositionPatient) for source in sources}


def test_frames_of_one_file_give_one_segmentation(tmp_path):
    highdicom = pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    sources = [pydicom.dcmread(path) for path in make_ct_series(tmp_path / 'ct')]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        sources, highdicom.UID(), 1, highdicom.UID(), 1, transfer_syntax_uid='1.2.840.10008.1.2.1'
    )
    enhanced.save_as(tmp_path / 'frames.dcm')
    model = Marking()
    model.window = '0,600'
    (done, _, faults), output = predict(tmp_path, [tmp_path / 'frames.dcm'], model)
    assert (done, faults) == (4, [])
    segmentation = highdicom.seg.segread(output / 'frames_seg.dcm')
    masks = segmentation.get_pixels_by_source_frame(enhanced.SOPInstanceUID, [1, 2, 3, 4])[..., 0]
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, levels(enhanced.pixel_array[number].astype(int) - 1024, 0, 600) > 127)
        np.testing.assert_array_equal(np.asarray(Image.open(output / f'frames_{number:03d}.png')) > 127, mask)


@pytest.mark.filterwarnings('ignore:Expected explicit VR')
def test_pictures_without_a_place_in_space_get_a_segmentation_each(tmp_path):
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    for name in ('examples_rgb_color', 'image_dfl'):
        shutil.copy(get_testdata_file(f'{name}.dcm'), tmp_path)
    clip = get_testdata_file('examples_ybr_color.dcm')
    (done, _, faults), output = predict(tmp_path, [tmp_path, clip], threshold=0.5, outline=True)
    assert (done, faults) == (32, [])
    assert sorted(path.name for path in output.glob('*.dcm')) == ['examples_rgb_color_seg.dcm', 'image_dfl_seg.dcm']
    mask = pydicom.dcmread(output / 'image_dfl_seg.dcm').pixel_array
    np.testing.assert_array_equal(mask, pydicom.dcmread(tmp_path / 'image_dfl.dcm').pixel_array > 127)
    np.testing.assert_array_equal(np.asarray(Image.open(output / 'masks/image_dfl.png')), 255 * mask)
    assert (output / 'examples_ybr_color_029.png').exists()
    assert (output / 'overlays/examples_ybr_color_000.png').exists()


def test_bad_files_are_reported_and_a_rerun_goes_on(tmp_path):
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    files = make_ct_series(tmp_path / 'ct')
    files[2].write_bytes(files[2].read_bytes()[:20000])
    shutil.copy(get_testdata_file('rtplan.dcm'), tmp_path / 'ct')
    (done, before, faults), output = predict(tmp_path, [tmp_path / 'ct'])
    assert (done, before, len(faults)) == (3, 0, 2)
    assert [re.search(r'(\w+\.dcm): ', fault)[1] for fault in faults] == ['rtplan.dcm', 'slice2.dcm']
    assert (output / 'slice0_seg.dcm').exists()
    files[2].unlink()
    time = (output / 'slice0.png').stat().st_mtime_ns
    (done, before, faults), output = predict(tmp_path, [tmp_path / 'ct'])
    assert (done, before, len(faults)) == (0, 3, 1)
    assert (output / 'slice0.png').stat().st_mtime_ns == time


# NIfTI


def rotation(degrees):
    """A rotation about an axis that is none of the three."""
    axis, angle = np.array([1, 2, 3]) / np.sqrt(14), np.radians(degrees)
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


# {name: (stored axes of right-left, front-back, foot-head; direction of each, + towards right, front, head; rotation)}
GEOMETRIES = {
    'plain': ((0, 1, 2), (1, 1, 1), 0),
    'flipped': ((0, 1, 2), (-1, 1, -1), 0),
    'sagittal': ((2, 0, 1), (1, -1, -1), 0),
    'oblique': ((1, 0, 2), (-1, -1, 1), 17),
}


def make_volume(path, geometry, anatomy, slope=None, intercept=None):
    """Stores anatomy [right to left, back to front, foot to head] in one of the geometries.

    Returns the function that turns any such array into the order of the stored voxels.
    """
    axes, signs, degrees = GEOMETRIES[geometry]

    def stored(array):
        order = np.argsort(axes)  # the world axis of each voxel axis
        # The world's x grows to the right, and anatomy's first axis runs to the left.
        flips = [slice(None, None, step) for step in (-signs[0], signs[1], signs[2])]
        return array[tuple(flips)].transpose(order)

    affine = np.eye(4)
    for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[:3, axis] = rotation(degrees) @ np.eye(3)[world] * sign * (0.7, 0.8, 5)[world]
    affine[:3, 3] = 12, -30, 44
    image = nibabel.Nifti1Image(stored(anatomy), affine)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units('mm')
    image.header['descrip'] = b'from a scanner'
    nibabel.save(image, path)
    return stored


@pytest.fixture
def anatomy():
    return RANDOM.integers(0, 1000, SHAPE).astype(np.int16)


def seen(anatomy, number):
    """An axial slice as radiologists see it: front on top, the patient's right on the left."""
    return anatomy[:, ::-1, number].T


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_slices_are_seen_upright_and_the_mask_comes_back_in_place(tmp_path, anatomy, geometry, ending):
    path = tmp_path / f'ct.v1{ending}'
    stored = make_volume(path, geometry, anatomy, slope=2, intercept=-10)
    units = anatomy.astype(int) * 2 - 10
    every, towards_head = addresses(path), GEOMETRIES[geometry][1][2] > 0
    assert [address.name for address in every] == [f'{number:03d}' for number in range(SHAPE[2])]
    for number, address in enumerate(every if towards_head else reversed(every)):
        np.testing.assert_array_equal(
            read_image(address, '1000,2000')[:, :, 0], levels(seen(units, number), 1000, 2000)
        )
    model = Marking()
    model.window = '1000,2000'
    (done, before, faults), output = predict(tmp_path, [path], model, raw='npy', outline=True)
    assert (done, before, faults) == (6, 0, [])
    source, mask, raw = (nibabel.load(one) for one in (path, output / 'ct.v1.nii.gz', output / 'ct.v1_raw.nii.gz'))
    marked = stored(levels(units, 1000, 2000) > 127)
    assert (mask.get_data_dtype(), raw.get_data_dtype()) == (np.uint8, np.float32)
    np.testing.assert_array_equal(mask.get_fdata(), marked)
    np.testing.assert_array_equal(raw.get_fdata(), np.where(marked, 0.75, 0.25))
    for result in (mask, raw):
        np.testing.assert_array_equal(result.affine, source.affine)
        for field in ('pixdim', 'qform_code', 'sform_code', 'xyzt_units', 'descrip'):
            np.testing.assert_array_equal(result.header[field], source.header[field])
    assert sorted(path.name for path in output.glob('*')) == [
        'ct.v1.nii.gz',
        'ct.v1_raw.nii.gz',
        'model.json',
        'overlays',
    ]
    assert len(list((output / 'overlays').iterdir())) == 6
    assert predict(tmp_path, [path], model, raw='npy', outline=True)[0] == (0, 6, [])


def test_several_classes_are_one_volume_of_indices(tmp_path, anatomy):
    stored = make_volume(tmp_path / 'ct.nii.gz', 'oblique', anatomy)
    model = TwoClasses()
    model.window = '500,1000'
    _, output = predict(tmp_path, [tmp_path / 'ct.nii.gz'], model, raw='npy')
    expected = stored(np.where(levels(anatomy, 500, 1000) > 127, 2, 1))
    np.testing.assert_array_equal(nibabel.load(output / 'ct.nii.gz').get_fdata(), expected)
    assert nibabel.load(output / 'ct_raw.nii.gz').shape == (*expected.shape, 2)


def test_eight_bits_and_the_window_of_a_header(tmp_path, anatomy):
    make_volume(tmp_path / 'grey.nii.gz', 'plain', anatomy.astype(np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / 'grey.nii.gz/002')[:, :, 0], seen(anatomy.astype(np.uint8), 2))
    image = nibabel.Nifti1Image(anatomy, np.diag([-1, -1, 1, 1]))  # as DICOM lies: seen as stored
    image.header['cal_min'], image.header['cal_max'] = 100, 600
    nibabel.save(image, tmp_path / 'ranged.nii')
    shown = read_image(tmp_path / 'ranged.nii/003', 'file')[:, :, 0]
    np.testing.assert_array_equal(shown, levels(anatomy[:, :, 3].T, 350, 500))
    with pytest.raises(InputError, match='more than 8 bits'):
        read_image(tmp_path / 'ranged.nii/003')


def test_unusable_volumes_are_named(tmp_path, anatomy):
    make_volume(tmp_path / 'whole.nii.gz', 'plain', RANDOM.integers(0, 1000, (40, 40, 9)).astype(np.int16))
    whole = (tmp_path / 'whole.nii.gz').read_bytes()
    (tmp_path / 'cut.nii.gz').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.nii').write_text('no volume')
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), np.int16), np.eye(4)), tmp_path / 'series.nii')
    colours = np.zeros((3, 3, 3), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / 'colour.nii')
    words = {
        'cut.nii.gz/002': 'cannot be read as NIfTI',
        'text.nii/000': 'cannot be read as NIfTI',
        'series.nii/000': 'has 4 dimensions',
        'colour.nii/001': 'holds colours',
        'missing.nii/000': 'no such file',
        'whole.nii.gz': r'holds 9 images; name one, as .*whole.nii.gz/004',
    }
    for name, reason in words.items():
        with pytest.raises(InputError, match=f'{name.partition("/")[0]}.*: .*{reason}') as caught:
            read_image(tmp_path / name, 'lung')
        assert '\n' not in str(caught.value)
    (done, _, faults), output = predict(tmp_path, [tmp_path])
    assert done == 9
    assert sorted(re.search(r'(\w+)\.nii', fault)[1] for fault in faults if 'written' not in fault) == [
        'colour', 'cut', 'series', 'text'
    ]  # fmt: skip
    assert [path.name for path in output.glob('*.nii*')] == ['whole.nii.gz']


# The command


def test_predict_takes_the_window_of_the_command_line(tmp_path, anatomy, capsys):
    model = write_model(tmp_path / 'tiny.safetensors')
    stored = make_volume(tmp_path / 'ct.nii.gz', 'sagittal', anatomy)
    config = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48']
    command = [
        '',
        'predict',
        f'--model={model}',
        f'--images={tmp_path}/ct.nii.gz',
        f'--output={tmp_path}/maps',
        *config,
    ]
    assert main(command) == 1
    assert 'ct.nii.gz: holds more than 8 bits' in capsys.readouterr().err
    assert main([*command, '--config.data.window=lungs']) == 2
    assert main([*command[:-3], *config, '--config.data.window=500,1000', f'--output={tmp_path}/ct']) == 0
    assert '6 of 6 images predicted' in capsys.readouterr().err
    assert nibabel.load(tmp_path / 'ct/ct.nii.gz').shape == stored(anatomy).shape
    assert main([*command[:-3], *config, '--config.data.window=lung', f'--output={tmp_path}/ct']) == 2
    assert 'another window' in capsys.readouterr().err
    assert main(['', 'convert', str(model), str(tmp_path / 'run'), *config, '--config.data.window=lung']) == 0
    run = ['', 'predict', f'--model={tmp_path}/run', f'--images={tmp_path}/ct.nii.gz', f'--output={tmp_path}/of_run']
    assert main([*run, '--config=default', '--config.data.window=bone']) == 2
    assert 'was trained with lung' in capsys.readouterr().err
    assert main(run) == 0
    assert json.loads((tmp_path / 'of_run/model.json').read_text())['window'] == 'lung'


# The dataset `folder`


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    return tmp_path / 'prepared'


@pytest.fixture
def volumes(tmp_path):
    """Eight volumes with masks, in all geometries, and two CTs in DICOM."""
    root = tmp_path / 'data'
    for kind in ('images', 'masks'):
        (root / kind).mkdir(parents=True)
    for number in range(8):
        anatomy = RANDOM.integers(0, 1000, SHAPE).astype(np.int16)
        geometry = list(GEOMETRIES)[number % 4]
        make_volume(root / f'images/ct{number}.nii.gz', geometry, anatomy)
        make_volume(root / f'masks/ct{number}.nii.gz', geometry, (anatomy > 700).astype(np.uint8))
    for path in make_ct_series(tmp_path / 'series', 2):
        shutil.copy(path, root / 'images')
        Image.fromarray(np.uint8(255) * (pydicom.dcmread(path).pixel_array > 900)).save(root / f'masks/{path.stem}.png')
    return root


def units_of(names):
    return {name.rpartition('_')[0] or name[:5] for name in names}


def test_a_folder_of_volumes(volumes, prepared):
    config = config_of('folder', volumes, **{'data.window': '500,1000'})
    dataset = open_dataset(config)
    train, test = names_of(dataset.train), names_of(dataset.tests['test'])
    assert len(train) + len(test) == 8 * SHAPE[2] + 2
    assert units_of(train).isdisjoint(units_of(test))
    assert units_of(train) | units_of(test) == {*(f'ct{number}' for number in range(8)), 'slice'}
    for example in (dataset.train[index] for index in range(len(train))):
        shown, marked = example['image'][:, :, 0], example['mask'] > 0
        if example['name'].startswith('ct'):
            file, number = example['name'].split('_')
            np.testing.assert_array_equal(
                shown, read_image(volumes / f'images/{file}.nii.gz' / number, '500,1000')[..., 0]
            )
            assert shown[marked].min() > levels(700, 500, 1000)
            assert shown[~marked].max() <= levels(700, 500, 1000)
    assert len({row['image_sha256'] for row in dataset.manifest}) == len(dataset.manifest)
    places = {name: splits.hash_fraction(name, 0) for name in units_of(train + test) if name != 'slice'}
    assert units_of(test) - {'slice'} == {name for name, place in places.items() if place < 0.2}
    other = open_dataset(config_of('folder', volumes, **{'data.window': '300,1000'}))
    assert not np.array_equal(other.train[0]['image'], dataset.train[0]['image'])


def test_volumes_stay_whole_in_lists_folds_and_validation(volumes, prepared):
    keys = {'data.window': '500,1000'}
    held_out = open_dataset(config_of('folder', volumes, **keys, **{'data.validation': 0.2}))
    assert units_of(names_of(held_out.validation)).isdisjoint(units_of(names_of(held_out.train)))
    tested = []
    for fold in range(3):
        dataset = open_dataset(config_of('folder', volumes, **keys, **{'data.fold': fold, 'data.folds': 3}))
        assert units_of(names_of(dataset.tests['test'])).isdisjoint(units_of(names_of(dataset.train)))
        tested += names_of(dataset.tests['test'])
    assert len(tested) == len(set(tested)) == 50
    (volumes / 'test.txt').write_text('ct3\nct4.nii.gz\n')
    listed = open_dataset(config_of('folder', volumes, **keys))
    assert units_of(names_of(listed.tests['test'])) == {'ct3', 'ct4'}
    (volumes / 'test.txt').write_text('ct3_001\n')
    assert_refused(config_of('folder', volumes, **keys), prepared / 'none', 'test.txt', "name 'ct3' once")


def move(root):
    image = nibabel.load(root / 'masks/ct1.nii.gz')
    affine = image.affine.copy()
    affine[2, 3] += 5
    nibabel.save(nibabel.Nifti1Image(image.get_fdata().astype(np.uint8), affine), root / 'masks/ct1.nii.gz')


def crop(root):
    image = nibabel.load(root / 'masks/ct1.nii.gz')
    nibabel.save(image.slicer[1:], root / 'masks/ct1.nii.gz')


def picture(root):
    (root / 'masks/ct1.nii.gz').unlink()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(root / 'masks/ct1.png')


def clip(root):
    shutil.copy(get_testdata_file('examples_ybr_color.dcm'), root / 'images/slice0.dcm')


def damage(root):
    (root / 'images/ct1.nii.gz').write_bytes(gzip.compress(b'no volume'))


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        (move, ['masks/ct1.nii.gz: lies elsewhere']),
        (crop, ['masks/ct1.nii.gz: ', 'give both the same grid']),
        (picture, ['ct1.png: a NIfTI volume has a NIfTI mask']),
        (clip, ['slice0.dcm: holds 30 frames']),
        (damage, ['ct1.nii.gz: cannot be read']),
    ],
)
def test_bad_volumes(volumes, prepared, fault, words):
    fault(volumes)
    assert_refused(config_of('folder', volumes, **{'data.window': '500,1000'}), prepared, *words)


def test_volumes_without_a_window_are_refused(volumes, prepared):
    assert_refused(config_of('folder', volumes), prepared, 'more than 8 bits', 'data.window')


def test_validate_looks_at_slices(volumes, prepared, tmp_path, capsys):
    command = ['', 'validate', f'--root={volumes}', f'--output={tmp_path}/look']
    shutil.copy(volumes / 'images/ct0.nii.gz', volumes / 'images/copy.nii.gz')
    shutil.copy(volumes / 'masks/ct0.nii.gz', volumes / 'masks/copy.nii.gz')
    assert main([*command, '--config.data.window=500,1000', '--config.data.seed=1']) in (0, 1)
    text = capsys.readouterr().out
    assert '6 pairs of near-duplicates' in text
    assert 'byte for byte the same' in text
    assert (tmp_path / 'look/duplicates.html').exists()


# The page about all this


@pytest.mark.parametrize('line', range(4))
def test_the_commands_of_the_page(tmp_path, volumes, prepared, monkeypatch, line):
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    page = (Path(__file__).parent.parent / 'docs/clinic.md').read_text(encoding='utf-8')
    commands = [found.split()[3:] for found in re.findall(r'^python -m m2snet_jax .*', page, re.MULTILINE)]
    assert len(commands) == 4
    shutil.copy(volumes / 'images/ct0.nii.gz', tmp_path / 'ct.nii.gz')
    monkeypatch.chdir(tmp_path)
    if commands[line][0] == 'predict':
        model = write_model(tmp_path / 'tiny.safetensors')
        commands[line] = [
            word.replace('runs/lung', str(model)).replace('runs/polyp', str(model)) for word in commands[line]
        ]
        window = [] if any('data.window' in word for word in commands[line]) else ['--config.data.window=lung']
        commands[line] += ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48', *window]
    assert main(['', *commands[line]]) == 0

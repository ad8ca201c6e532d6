"""DICOM by its content, windows of 8 bits, inverted masks; NIfTI of other dimensions, masks and maps."""

import numpy as np
import pytest
from clinic_files import Marking, levels, nibabel, predict, pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.filewriter import dcmwrite

from m2snet_jax.errors import InputError
from m2snet_jax.images.decisions import map_reading
from m2snet_jax.images.formats import locate, read_image, read_map, read_mask, split_name
from m2snet_jax.prediction.folders import find_images
from m2snet_jax.prediction.series import group_series

AFFINE = np.diag([-1, -1, 1, 1])  # seen as stored


def ramp():
    return np.tile(np.arange(0, 256, 5, dtype=np.uint8), (40, 1))


def dicom(path, values, preamble=True, **attributes):
    dataset = pydicom.dcmread(get_testdata_file('CT_small.dcm'))
    for name in ('RescaleSlope', 'RescaleIntercept'):
        delattr(dataset, name)
    dataset.Rows, dataset.Columns, dataset.PixelData = *values.shape, values.tobytes()
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(values.dtype.kind == 'i')
    for name, value in attributes.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    if preamble:
        dataset.save_as(path)
    else:
        dataset.preamble = None
        del dataset.file_meta
        dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return path


def test_dicom_is_recognised_by_its_content(tmp_path):
    stored = np.random.default_rng(0).integers(0, 2000, (40, 48)).astype(np.uint16)
    top = tmp_path / 'disc'
    names = ('IM000001', 'slice.IMA', '1.2.840.113619.2.55', '1.2.840.113619.2.56', 'DICOM/PA1/SE1/000')
    for name in names:
        dicom(top / name, stored)
    dicom(top / 'old/IM000009', stored, preamble=False)
    dicom(top / 'DICOMDIR', stored)  # of a disc: by its name an index, which holds no image
    (top / 'autorun.inf').write_text('[autorun]')
    (top / 'README').write_text('a viewer')
    found = dict(find_images([top], tmp_path / 'maps'))
    assert sorted(found) == sorted([*names[2:], 'IM000001', 'slice', 'old/IM000009'])
    for path in found.values():
        assert locate(path) == (path, None)
        np.testing.assert_array_equal(read_image(path, '1000,2000')[:, :, 0], levels(stored.astype(int), 1000, 2000))
    model = Marking()
    model.window = '1000,2000'
    (done, _, faults), output = predict(tmp_path, [top / 'old'], model)
    assert (done, faults) == (1, [])
    assert {path.name for path in output.iterdir()} == {'IM000009.png', 'IM000009_seg.dcm', 'model.json'}


def test_a_number_is_no_ending():
    assert split_name('1.2.840.10008') == ('1.2.840.10008', '')
    assert split_name('a.b.nii.gz') == ('a.b', '.nii.gz')


@pytest.mark.parametrize(
    ('attributes', 'window', 'low', 'high'),
    [
        ({}, None, 0, 255),
        ({}, 'lung', 0, 255),  # in Hounsfield units, which the file does not have
        ({}, 'file', 0, 255),
        ({}, '100,50', 75, 125),
        ({'WindowCenter': 100, 'WindowWidth': 50}, 'file', 75, 125),
        ({'RescaleSlope': -10, 'RescaleIntercept': 3000}, None, 255, 0),
        ({'RescaleSlope': -10, 'RescaleIntercept': 3000, 'WindowCenter': 1725, 'WindowWidth': 2550}, 'file', 255, 0),
        ({'RescaleSlope': 8, 'RescaleIntercept': -1024}, None, 0, 255),
        ({'RescaleSlope': 8, 'RescaleIntercept': -1024}, 'lung', (-1350 + 1024) / 8, (150 + 1024) / 8),
        ({'PhotometricInterpretation': 'MONOCHROME1'}, None, 255, 0),
    ],
)
def test_windows_of_8_bits(tmp_path, attributes, window, low, high):
    path = dicom(tmp_path / 'a.dcm', ramp(), **attributes)
    expected = np.rint(255 * np.clip((ramp() - np.float64(low)) / (high - low), 0, 1))
    np.testing.assert_array_equal(read_image(path, window)[:, :, 2], expected)


def test_inverted_grey_of_more_bits(tmp_path):
    stored = ramp().astype(np.uint16) * 16
    path = dicom(tmp_path / 'a.dcm', stored, PhotometricInterpretation='MONOCHROME1', BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path, '2048,4096')[:, :, 0], 255 - levels(stored.astype(int), 2048, 4096))


def test_masks_in_dicom(tmp_path):
    lesion = ramp() > 100
    for number, (values, photometric) in enumerate(
        [
            (lesion * np.uint8(1), 'MONOCHROME2'),
            (~lesion * np.uint8(255), 'MONOCHROME1'),
            (lesion * np.uint16(4000), None),
        ]
    ):
        path = dicom(tmp_path / f'{number}.dcm', values, PhotometricInterpretation=photometric or 'MONOCHROME2')
        mask = read_mask(path)
        np.testing.assert_array_equal(mask > mask.max() / 2, lesion)


@pytest.mark.parametrize('shape', [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 3, 1), (6, 5, 3, 1, 1)])
def test_axes_of_length_1(tmp_path, shape):
    stored = np.random.default_rng(0).integers(0, 2000, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / 'a.nii.gz')
    model = Marking()
    model.window = '1000,2000'
    (done, _, faults), output = predict(tmp_path, [tmp_path / 'a.nii.gz'], model, raw='npy')
    assert (done, faults) == (1 if len(shape) == 2 or shape[2] == 1 else 3, [])
    mask = nibabel.load(output / 'a.nii.gz')
    assert mask.shape == shape
    np.testing.assert_array_equal(mask.get_fdata(), levels(stored, 1000, 2000) > 127)
    volume = stored.reshape(6, 5, -1)
    np.testing.assert_array_equal(
        read_image(tmp_path / 'a.nii.gz/000', '1000,2000')[:, :, 0], levels(volume[:, :, 0].T, 1000, 2000)
    )
    cut = [
        read_map(output / f'a.nii.gz/{number:03d}', map_reading([output / 'a.nii.gz/000'])) for number in range(done)
    ]
    raw = [
        read_map(output / f'a_raw.nii.gz/{number:03d}', map_reading([output / 'a_raw.nii.gz/000']))
        for number in range(done)
    ]
    np.testing.assert_array_equal(np.stack(cut) > 127, np.stack(raw) > 127)


def test_a_volume_beside_own_maps_does_not_change_how_these_are_read(tmp_path):
    label = np.zeros((52, 40, 1), np.uint8)
    label[10:20, 5:9] = 1
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), tmp_path / 'ct.nii.gz')
    Image.fromarray(ramp()).save(tmp_path / 'a.png')
    Image.fromarray(ramp() * np.uint16(257)).save(tmp_path / 'b.png')
    volume = tmp_path / 'ct.nii.gz/000'
    reading = map_reading([tmp_path / 'a.png', tmp_path / 'b.png', volume], is_own=True)
    for name in 'ab':
        np.testing.assert_array_equal(read_map(tmp_path / f'{name}.png', reading), ramp())
    np.testing.assert_array_equal(read_map(volume, reading), 255 * label[:, :, 0].T)
    assert reading.notes == ('maps in DICOM and NIfTI hold 0 and 1: read as 0 and 255',)


def test_a_header_that_names_more_than_the_file_holds(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 3), np.int16), AFFINE), tmp_path / 'a.nii')
    content = bytearray((tmp_path / 'a.nii').read_bytes())
    content[42:44] = (30000).to_bytes(2, 'little')
    (tmp_path / 'a.nii').write_bytes(content)
    with pytest.raises(InputError, match=r'a\.nii: cannot be read as NIfTI \(its header names more voxels'):
        read_image(tmp_path / 'a.nii/000', 'lung')
    path = dicom(tmp_path / 'b.dcm', ramp(), NumberOfFrames=10**8)
    with pytest.raises(InputError, match=r'b\.dcm: cannot be read as DICOM \(its header names 100000000 frames'):
        read_image(path)


def test_a_damaged_orientation_leaves_no_series(tmp_path):
    path = dicom(tmp_path / 'a.dcm', ramp())
    content = path.read_bytes()
    numbers = content.index(b'\x20\x00\x37\x00') + 8  # of ImageOrientationPatient, after its tag, type and length
    path.write_bytes(content[:numbers] + b'1\x01000000'[:8] + content[numbers + 8 :])
    (series,) = group_series([('a', path)])
    assert series.reader is None


def test_no_message_advises_to_remove_a_file(tmp_path):
    (tmp_path / 'a.dcm').write_bytes(b'no DICOM')
    (tmp_path / 'b.nii').write_bytes(b'no NIfTI')
    (tmp_path / 'c.png').write_bytes(b'no PNG')
    Image.fromarray(ramp()).save(tmp_path / 'd.png')
    (tmp_path / 'd.png').write_bytes((tmp_path / 'd.png').read_bytes()[:60])
    for name in ('a.dcm', 'b.nii/000', 'c.png', 'd.png'):
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name, 'lung')
        assert 'remove' not in str(caught.value)

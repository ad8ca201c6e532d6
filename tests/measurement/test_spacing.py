"""Millimetres from the headers of DICOM and NIfTI files that are made here."""

import numpy as np
import pytest

from m2snet_jax.images.spacing import read_spacing
from m2snet_jax.measurement.findings import find_lesions

pydicom = pytest.importorskip('pydicom', reason='an optional requirement: pip install .[clinic]')
nibabel = pytest.importorskip('nibabel', reason='an optional requirement: pip install .[clinic]')

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402


def write_dicom(path, shape=(60, 80), **elements):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.6.1'
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = 'US', 'MONOCHROME2', 1
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = np.zeros(shape, np.uint8).tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def region(left, top, right, bottom, across, down, unit=3):
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = across, down
    return item


def lesions(path, mask):
    (found,) = find_lesions('x', mask[..., None], None, read_spacing(path))
    return found.lesions


def box(top, left, height, width, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize('keyword', ['PixelSpacing', 'ImagerPixelSpacing'])
def test_dicom_with_unequal_spacing(tmp_path, keyword):
    path = write_dicom(tmp_path / 'a.dcm', **{keyword: [0.5, 0.25]})
    (tall,) = lesions(path, box(10, 20, 30, 1))
    (wide,) = lesions(path, box(10, 20, 1, 30))
    assert (tall.diameter_mm, tall.area_mm2) == pytest.approx((15, 30 * 0.125))
    assert (wide.diameter_mm, wide.area_mm2) == pytest.approx((7.5, 30 * 0.125))
    assert ('detector' in read_spacing(path).note) == (keyword == 'ImagerPixelSpacing')


def test_pixel_spacing_comes_before_that_of_the_detector(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', PixelSpacing=[1, 2], ImagerPixelSpacing=[3, 4])
    assert read_spacing(path).size == (1, 2)


def test_a_lesion_of_ultrasound_is_measured_in_the_region_of_its_centroid(tmp_path):
    regions = [region(0, 0, 39, 59, 0.02, -0.05), region(40, 0, 79, 29, 0.01, 0.01), region(40, 30, 79, 59, 1, 1, 4)]
    path = write_dicom(tmp_path / 'us.dcm', SequenceOfUltrasoundRegions=regions)
    (left,) = lesions(path, box(10, 5, 20, 1))
    (right,) = lesions(path, box(10, 50, 1, 20))
    (seconds,) = lesions(path, box(40, 50, 5, 5))
    assert (left.diameter_mm, left.area_mm2) == pytest.approx((20 * 0.5, 20 * 0.2 * 0.5))
    assert (right.diameter_mm, right.area_mm2) == pytest.approx((20 * 0.1, 20 * 0.01))
    assert seconds.diameter_mm is None
    assert seconds.area_mm2 is None
    assert seconds.area_px == 25


def test_without_spacing_there_are_no_millimetres(tmp_path):
    (lesion,) = lesions(write_dicom(tmp_path / 'a.dcm'), box(1, 1, 4, 4))
    assert lesion.area_mm2 is None
    assert lesion.diameter_mm is None
    assert read_spacing('a.png').at(0, 0) is None


@pytest.mark.parametrize(('unit', 'factor'), [('mm', 1), ('meter', 1000), ('micron', 0.001), ('unknown', 1)])
def test_nifti_has_its_zooms_in_the_order_of_the_slices(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.diag([0.7, 0.8, 5, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / 'ct.nii.gz')
    spacing = read_spacing(tmp_path / 'ct.nii.gz' / '001')
    assert (spacing.between_slices, *spacing.size) == pytest.approx((5 * factor, 0.8 * factor, 0.7 * factor))
    assert ('read as mm' in spacing.note) == (unit == 'unknown')
    mask = np.zeros((4, 5, 6, 1), bool)
    mask[1:3, 1:4, 2] = True
    (found,) = find_lesions('ct', mask, None, spacing)
    (lesion,) = found.lesions
    assert lesion.volume_ml == pytest.approx(6 * 0.7 * 0.8 * 5 * factor**3 / 1000)
    assert (lesion.diameter_mm, lesion.area_mm2) == pytest.approx((3 * 0.8 * factor, 3 * 0.56 * factor**2))

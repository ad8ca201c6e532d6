"""DICOM out: maps and segmentations in the geometry of what came in."""

import re
import shutil

import numpy as np
import pytest
from clinic_files import Marking, levels, make_ct_series, predict, pydicom
from PIL import Image
from pydicom.data import get_testdata_file


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
    model = Marking()
    model.window = None  # of 8 bits, which a window would change
    (done, _, faults), output = predict(tmp_path, [tmp_path, clip], model, threshold=0.5, outline=True)
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

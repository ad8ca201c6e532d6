"""Files of clinics for tests, and models whose maps follow from the pixels; skipped without the optional packages."""

import numpy as np
import pytest

from m2snet_jax.images.reading import Reading
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

    classes, size, model_hash, window, config, reading = 1, 8, 'a hash', '0,2000', None, Reading()

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


def seen(anatomy, number):
    """An axial slice as radiologists see it: front on top, the patient's right on the left."""
    return anatomy[:, ::-1, number].T

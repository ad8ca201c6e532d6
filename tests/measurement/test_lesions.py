"""Lesions of drawn shapes, against the formulae of the shapes."""

import numpy as np
import pytest

from m2snet_jax.measurement.findings import find_lesions, table_text
from m2snet_jax.measurement.lesions import label_lesions, measure_lesions, measure_volume


def ellipse(shape, centre, axes, degrees=0.0, spacing=(1, 1)):
    """Pixels whose centres lie in an ellipse; axes are (x, y) half axes, lengths in mm of the spacing."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = (y - centre[1]) * spacing[0], (x - centre[0]) * spacing[1]
    turn = np.radians(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1


def circularity(a, b):
    """Of an ellipse, with Ramanujan's perimeter."""
    h = ((a - b) / (a + b)) ** 2
    perimeter = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    return 4 * np.pi * np.pi * a * b / perimeter**2


@pytest.mark.parametrize('radius', [20, 33.3, 60])
@pytest.mark.parametrize('centre', [(80, 70), (81.37, 70.5)])
def test_a_disc_has_the_area_and_the_diameter_of_its_formula(radius, centre):
    (lesion,) = measure_lesions(ellipse((150, 160), centre, (radius, radius)))
    assert lesion.area_px == pytest.approx(np.pi * radius**2, rel=0.01)
    assert (lesion.centroid_x_px, lesion.centroid_y_px) == pytest.approx(centre, abs=0.1)
    assert lesion.diameter_px == pytest.approx(2 * radius, abs=1)
    assert lesion.perpendicular_px == pytest.approx(2 * radius, abs=1)
    assert lesion.box_left_px == pytest.approx(centre[0] - radius, abs=1)
    assert lesion.box_top_px == pytest.approx(centre[1] - radius, abs=1)
    assert lesion.box_width_px == pytest.approx(2 * radius, abs=1)
    assert lesion.circularity == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize('degrees', [0, 20, 45, 110])
def test_an_ellipse_is_measured_in_any_direction(degrees):
    (lesion,) = measure_lesions(ellipse((220, 220), (110, 105.5), (80, 35), degrees))
    assert lesion.area_px == pytest.approx(np.pi * 80 * 35, rel=0.01)
    assert lesion.diameter_px == pytest.approx(160, abs=1)
    assert lesion.perpendicular_px == pytest.approx(70, abs=1)
    assert lesion.circularity == pytest.approx(circularity(80, 35), rel=0.04)


@pytest.mark.parametrize('degrees', [0, 30, 90])
def test_unequal_spacing_gives_lengths_and_areas_in_mm(degrees):
    spacing = 0.5, 0.2  # mm between rows, between columns
    mask = ellipse((140, 300), (150, 70), (25, 12), degrees, spacing)
    (lesion,) = measure_lesions(mask, None, spacing)
    assert lesion.area_mm2 == pytest.approx(np.pi * 25 * 12, rel=0.01)
    assert lesion.diameter_mm == pytest.approx(50, abs=0.5)
    assert lesion.perpendicular_mm == pytest.approx(24, abs=0.5)
    assert lesion.circularity == pytest.approx(circularity(25, 12), rel=0.04)


@pytest.mark.parametrize('axes', [(20, 10), (30, 28), (60, 6), (90, 50)])
def test_both_diameters_of_ellipses_are_within_a_pixel(axes):
    random = np.random.default_rng(0)
    for degrees in random.uniform(0, 180, 12):
        (lesion,) = measure_lesions(ellipse((200, 200), 100 + random.uniform(-1, 1, 2), axes, degrees))
        assert lesion.diameter_px == pytest.approx(2 * axes[0], abs=1)
        assert lesion.perpendicular_px == pytest.approx(2 * axes[1], abs=1)


@pytest.mark.parametrize('spacing', [(1, 0.4), (0.25, 1), (5, 0.7)])
@pytest.mark.parametrize('degrees', [0, 25, 60])
def test_circularity_is_that_of_the_formula_at_any_spacing(spacing, degrees):
    mask = ellipse(
        [int(160 / side) + 20 for side in spacing], [80 / side for side in spacing[::-1]], (60, 40), degrees, spacing
    )
    (lesion,) = measure_lesions(mask, None, spacing)
    assert lesion.circularity == pytest.approx(circularity(60, 40), rel=0.04)


def test_the_perpendicular_of_a_rectangle_is_a_chord():
    mask = np.zeros((50, 120), bool)
    mask[5:35, 10:110] = True
    (lesion,) = measure_lesions(mask)
    assert lesion.diameter_px == pytest.approx(np.hypot(30, 100), abs=1)
    assert lesion.perpendicular_px == pytest.approx(30 * np.hypot(30, 100) / 100, abs=1)  # between the long sides


def test_the_smallest_shapes_have_the_size_of_their_pixels():
    mask = np.zeros((9, 20), bool)
    mask[1, 1] = mask[4, 3:14] = True
    bar, pixel = measure_lesions(mask)
    assert (pixel.area_px, pixel.diameter_px, pixel.perpendicular_px, pixel.circularity) == (1, 1, 1, 1)
    assert (bar.area_px, bar.diameter_px, bar.perpendicular_px) == (11, 11, 1)
    assert (bar.box_left_px, bar.box_top_px, bar.box_width_px, bar.box_height_px) == (3, 4, 11, 1)
    assert measure_lesions(np.zeros((3, 4), bool)) == []


def test_lesions_that_touch_at_a_corner_are_one():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = True
    assert [lesion.area_px for lesion in measure_lesions(mask)] == [8]
    mask[3:5, 3] = False
    assert [lesion.area_px for lesion in measure_lesions(mask)] == [4, 2]


def test_lesions_are_numbered_by_size_and_specks_are_left_out():
    mask = np.zeros((10, 30), bool)
    mask[1, 1] = mask[2:6, 8:12] = mask[2:5, 20:23] = True
    assert label_lesions(mask)[[1, 2, 2], [1, 8, 20]].tolist() == [3, 1, 2]
    labels = label_lesions(mask, smallest=9)
    assert labels.max() == 2
    assert labels[1, 1] == 0
    assert label_lesions(mask, smallest=10).max() == 1


def test_probabilities_are_those_inside_the_lesion():
    probability = np.full((6, 6), 0.25, np.float32)
    probability[2, 2:4] = 0.5, 1
    (lesion,) = measure_lesions(probability >= 0.5, probability)
    assert (lesion.mean_probability, lesion.largest_probability) == (0.75, 1)


def test_a_lesion_through_five_slices_is_one_with_its_volume():
    volume = np.zeros((9, 60, 80), bool)
    for number, radius in zip(range(2, 7), (5, 9, 12, 9, 5), strict=True):
        volume[number] = ellipse((60, 80), (40 + number, 30), (radius, radius))
    volume[7, 2, 2] = True
    spacing = 5.0, 0.8, 0.5
    body, speck = measure_volume(label_lesions(volume), None, spacing)
    voxels = int(volume.sum()) - 1
    assert (body.slices, body.volume_voxels, body.slice) == (5, voxels, 4)
    assert body.volume_ml == pytest.approx(voxels * 5 * 0.8 * 0.5 / 1000)
    assert body.area_px == volume[4].sum()
    assert (body.centroid_x_px, body.centroid_y_px) == pytest.approx((44, 30))
    assert body.diameter_mm == pytest.approx(24 * 0.8, abs=0.8)
    assert (speck.slice, speck.slices, speck.volume_voxels) == (7, 1, 1)
    assert speck.volume_ml == pytest.approx(0.002)


def test_slices_that_touch_at_a_corner_of_voxels_are_one_lesion():
    volume = np.zeros((3, 5, 5), bool)
    volume[0, 1, 1] = volume[1, 2, 2] = volume[2, 3, 3] = True
    (lesion,) = measure_volume(label_lesions(volume))
    assert (lesion.slices, lesion.volume_voxels, lesion.volume_ml) == (3, 3, None)


def test_the_table_has_a_row_a_lesion_and_units_in_the_names_of_its_columns():
    masks = np.zeros((6, 9, 2), bool)
    masks[1:3, 1:3, 0] = masks[4, 5:8, 0] = masks[0, 8, 1] = True
    found = find_lesions('a', masks, frame=7)
    text = table_text([row for one in found for row in one.rows()], {'smallest': 0})
    head, *rows = [line for line in text.splitlines() if not line.startswith('#')]
    names = head.split(',')
    rows = [dict(zip(names, row.split(','), strict=True)) for row in rows]
    assert text.startswith('# smallest: 0\n# convention: ')
    assert [(row['image'], row['frame'], row['class'], row['number'], row['area_px']) for row in rows] == [
        ('a', '7', '1', '1', '4'),
        ('a', '7', '1', '2', '3'),
        ('a', '7', '2', '1', '1'),
    ]
    assert {row['area_mm2'] for row in rows} == {''}

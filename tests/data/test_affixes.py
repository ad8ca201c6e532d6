"""Names of images and masks that differ in a prefix or a suffix."""

import pytest

from m2snet_jax.data.affixes import match_names


@pytest.mark.parametrize(
    ('images', 'masks', 'pattern'),
    [
        ('ISIC_01 ISIC_02 ISIC_12', 'ISIC_01_segmentation ISIC_02_segmentation ISIC_12_segmentation', '*_segmentation'),
        ('1 2 3', '1_mask 2_mask 3_mask', '*_mask'),
        ('10 20 30', '10-label 20-label 30-label', '*-label'),
        ('a1 a2', 'mask_a1 mask_a2', 'mask_*'),
        ('1 11', 'm1 m11', 'm*'),
        ('x', 'seg_x_final', 'seg_*_final'),
    ],
)
def test_what_all_masks_share_is_left_out(images, masks, pattern):
    images, masks = images.split(), masks.split()
    partners, lines = match_names(images, masks)
    assert partners == dict(zip(images, masks, strict=True))
    assert lines == [f"images are named '*' and masks {pattern!r}: paired by what * is"]
    assert match_names(masks, images)[0] == dict(zip(masks, images, strict=True))


def test_an_affix_of_each_kind_is_left_out_where_every_name_has_a_partner():
    images, masks = [f'{number}_training' for number in (21, 22, 30)], [f'{number}_manual1' for number in (21, 22, 30)]
    partners, lines = match_names(images, masks)
    assert partners == dict(zip(images, masks, strict=True))
    assert lines == ["images are named '*_training' and masks '*_manual1': paired by what * is"]
    assert match_names(images, masks[:2]) == ({}, [])


@pytest.mark.parametrize(
    ('images', 'masks'),
    [
        ('img_10 img_11', 'seg_20 seg_21'),  # what is left must be whole numbers
        ('day1_1 day1_2', 'day2_1 day2_2'),
        ('1 2', '12 22'),
        ('a b', 'c d'),
        ('scan', 'label'),
        ('', 'a'),
        ('a', ''),
    ],
)
def test_names_that_are_not_alike_are_not_paired(images, masks):
    assert match_names(images.split(), masks.split()) == ({}, [])


def test_equal_names_are_paired_and_nothing_else_then():
    assert match_names(['a', 'b'], ['a', 'b_mask']) == ({'a': 'a'}, [])


def test_each_folder_has_an_affix_of_its_own_and_each_is_said_once():
    images = ['training/21_training', 'training/22_training', 'test/01_test', 'test/02_test', 'p/a', 'q/a']
    masks = ['training/21_manual', 'training/22_manual', 'test/01_manual', 'test/02_manual', 'p/a_m', 'q/a_m', 'r/a_m']
    partners, lines = match_names(images, masks)
    assert partners == dict(zip(images, masks, strict=False))
    assert len(lines) == 3


def test_one_mask_without_image_and_one_image_without_mask():
    partners, _ = match_names(['1', '2', '3'], ['2_mask', '3_mask', '4_mask'])
    assert partners == {'2': '2_mask', '3': '3_mask'}

"""What leaks into a test set: lists of training images, for `data.exclude`, with which to measure their worth."""

from m2snet_jax.data import splits


def exclusion_lists(looks, groups, seed):
    """Returns two lists of names of training images that are equally long and hold as many of each label.

    Leaving out the first takes away what leaks; leaving out the second takes away as many images and no leak, so that
    the difference between both is the leaks' own.

    Args:
        looks: examples with split, name and label.
        groups: the number of each one's group of near-duplicates, int [N].
        seed: of the draw.

    Returns:
        dict of `near_duplicates`, training images in one group with an image of a test set, and `control`, as many
        others drawn at random; of the first in the order of the dataset, of the second in the drawn order.
    """
    tested = {group for look, group in zip(looks, groups, strict=True) if look.split not in splits.NOT_TESTED}
    train = [(look, group) for look, group in zip(looks, groups, strict=True) if look.split == 'train']
    near = [look for look, group in train if group in tested]
    others = [look for look, group in train if group not in tested]
    others.sort(key=lambda look: splits.place(look.name, seed))
    control = []
    for label in dict.fromkeys(look.label for look in near):
        wanted = sum(look.label == label for look in near)
        control += [look for look in others if look.label == label][:wanted]
    return {'near_duplicates': [look.name for look in near], 'control': [look.name for look in control]}

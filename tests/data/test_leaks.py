"""Lists of training images that look like test images, and of as many others."""

from types import SimpleNamespace

import numpy as np
from data_trees import image_of, make_pairs, write

from m2snet_jax.commands.validate import main
from m2snet_jax.data.leaks import compare_images, exclusion_lists


def check(name, split, label):
    return SimpleNamespace(name=name, split=split, label=label)


def test_whole_groups_are_named_and_the_control_has_as_many_of_each_label():
    checks = [check(f'test{k}', 'test', 'a') for k in range(3)] + [check('normal', 'normal', 'n')]
    groups = [0, 1, 2, 3]
    # Two of group 0, one of group 3, one that is near to a validation image only; the rest alone.
    checks += [check('near1', 'train', 'a'), check('near2', 'train', 'b'), check('near3', 'train', 'a')]
    checks += [check('held', 'validation', 'a'), check('kept', 'train', 'a'), check('out', 'excluded', 'a')]
    groups += [0, 0, 3, 4, 4, 0]
    checks += [check(f'{label}{k}', 'train', label) for label in 'ab' for k in range(20)]
    groups += range(5, 45)
    lists = exclusion_lists(checks, groups, seed=0)
    assert lists['near_duplicates'] == ['near1', 'near2', 'near3']
    control = lists['control']
    assert sorted(name[0] for name in control if name != 'kept') + ['a'] * ('kept' in control) == ['a', 'a', 'b']
    assert not set(control) & {'near1', 'near2', 'near3', 'held', 'out'}
    assert control == exclusion_lists(checks, groups, seed=0)['control']
    assert len({tuple(exclusion_lists(checks, groups, seed)['control']) for seed in range(5)}) > 1


def test_images_of_one_group_are_compared_only_across_splits():
    random = np.random.default_rng(0)
    slices = [('train', 'p1/0'), ('train', 'p1/1'), ('test', 'p1/2'), ('train', 'p2/0'), ('test', 'p3/0')]
    alike, apart = random.normal(size=(2, 64 * 64))
    checks = [
        SimpleNamespace(
            split=split,
            name=name,
            label='',
            path=name,
            group=name[:2],
            image_sha256=name,
            thumbnail=picture / np.linalg.norm(picture),
        )
        for (split, name), picture in zip(slices, (alike, alike, alike, apart, apart), strict=True)
    ]
    report = compare_images(checks, {}, seed=0)
    pairs = {tuple(pair['names']) for pair in report['pairs']}
    assert pairs == {('p1/0', 'p1/2'), ('p1/1', 'p1/2'), ('p2/0', 'p3/0')}
    assert report['across_split'] == 3
    assert report['exclude']['near_duplicates'] == ['p1/0', 'p1/1', 'p2/0']


def test_lists_of_an_earlier_state_of_the_data_are_removed(tmp_path, prepared):
    root, look = tmp_path / 'data', tmp_path / 'look'
    make_pairs(root / 'images/train', root / 'masks/train', ['a', 'b', 'c'])
    make_pairs(root / 'images/test', root / 'masks/test', ['d'])  # of the pixels of a
    arguments = ['validate', f'--root={root}', f'--output={look}']
    main(arguments)
    every = {'validate.json', 'duplicates.html', 'near_duplicates.txt', 'control.txt'}
    assert {path.name for path in look.iterdir()} == every
    write(root / 'images/test/d.png', image_of(8))
    main(arguments)
    assert {path.name for path in look.iterdir()} == {'validate.json'}

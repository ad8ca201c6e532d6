import threading
from collections import Counter

import numpy as np
import pytest

from m2snet_jax.config import load_config
from m2snet_jax.data import augment
from m2snet_jax.data.pipeline import eval_examples, image_size, steps_per_epoch, train_batches
from m2snet_jax.errors import InputError

COUNT = 10


@pytest.fixture
def config():
    keys = {'data.size': 40, 'data.sizes': (33, 36, 40), 'batch': 4, 'seed': 3}
    return load_config('default', **keys)


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(30, 60)), int(rng.integers(30, 60))) for _ in range(COUNT)]
    return [
        {
            'name': f'image{index}',
            'image': np.full((*shape, 3), 20 * index, np.uint8),  # its grey says which one it is
            'mask': rng.integers(0, 256, shape, dtype=np.uint8),
        }
        for index, shape in enumerate(shapes)
    ]


def taken(count, *args, **kwargs):
    batches = train_batches(*args, **kwargs)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def assert_equal_bytes(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch['image'].tobytes() == other['image'].tobytes()
        assert batch['mask'].tobytes() == other['mask'].tobytes()


def rows(batch):
    return Counter(image.tobytes() + mask.tobytes() for image, mask in zip(batch['image'], batch['mask'], strict=True))


def which(batch):
    grey = batch['image'][:, 20, 20, 0] * augment.TRAIN_STD[0] + augment.TRAIN_MEAN[0]
    return np.round(grey / 20).astype(int).tolist()


def test_shapes_types_and_ranges(source, config):
    (batch,) = taken(1, source, config)
    assert batch['image'].shape == (4, 40, 40, 3)
    assert batch['mask'].shape == (4, 40, 40, 1)
    assert batch['image'].dtype == batch['mask'].dtype == np.float32
    assert 0 <= batch['mask'].min() < 0.5 < batch['mask'].max() <= 1


def test_several_classes(source, config):
    config.data.classes = 3
    classes = [{**example, 'mask': example['mask'] % 4} for example in source]
    (batch,) = taken(1, classes, config)
    assert batch['mask'].shape == (4, 40, 40, 3)


def test_one_seed_gives_equal_bytes_whatever_threads_and_cache(source, config):
    expected = taken(7, source, config)
    assert_equal_bytes(taken(7, source, config), expected)
    config.data.cache, config.data.threads = False, 1
    assert_equal_bytes(taken(7, source, config), expected)
    config.seed = 4
    assert rows(taken(1, source, config)[0]) != rows(expected[0])


@pytest.mark.parametrize('step', [1, 4, 6])
def test_a_restart_goes_on_byte_for_byte(source, config, step):
    assert_equal_bytes(taken(3, source, config, start_step=step), taken(step + 3, source, config)[step:])


@pytest.mark.parametrize('process_count', [2, 4])
def test_processes_share_the_batches_of_one(source, config, process_count):
    alone = taken(6, source, config)
    shares = [
        taken(6, source, config, process_index=index, process_count=process_count) for index in range(process_count)
    ]
    for step, batch in enumerate(alone):
        assert shares[0][step]['image'].shape[0] == 4 // process_count
        assert sum((rows(share[step]) for share in shares), Counter()) == rows(batch)


def test_every_epoch_holds_every_image_once_in_a_new_order_with_new_augmentation(source, config):
    batches = taken(15, source, config)  # 60 rows are 6 epochs of 10 across the borders of batches
    order = [number for batch in batches for number in which(batch)]
    epochs = [order[start : start + COUNT] for start in range(0, 60, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    all_rows = sum((rows(batch) for batch in batches), Counter())
    assert len(all_rows) == 60


def test_one_image_alone_can_fill_a_batch(source, config):
    (batch,) = taken(1, source[3:4], config)
    assert which(batch) == [3, 3, 3, 3]


def test_batches_of_one(source, config):
    config.batch = 1
    batches = taken(COUNT, source, config)
    assert sorted(which(batch)[0] for batch in batches) == list(range(COUNT))


def test_close_ends_its_threads(source, config):
    before = threading.active_count()
    taken(2, source, config)
    for thread in threading.enumerate():
        if thread.name.startswith('grain-prefetch'):
            thread.join(5)
    assert threading.active_count() <= before


def test_the_cache_decodes_once(source, config):
    asked = []

    class Counted(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    config.data.threads = 1
    taken(8, Counted(source), config)
    assert sorted(asked) == list(range(COUNT))


def test_batches_must_divide_among_processes(source, config):
    with pytest.raises(InputError, match=r'config\.batch=4.*3 processes'):
        train_batches(source, config, process_count=3)


def test_image_size(config):
    sizes = [image_size(config, step) for step in range(900)]
    assert sizes == [image_size(config, step) for step in range(900)]
    counts = Counter(sizes)
    assert set(counts) == {33, 36, 40}
    assert all(240 < count < 360 for count in counts.values())  # 300 ± 4 standard deviations
    config.seed = 5
    assert sizes != [image_size(config, step) for step in range(900)]


def test_steps_per_epoch(source, config):
    assert steps_per_epoch(source, config) == 3
    config.batch = 5
    assert steps_per_epoch(source, config) == 2


def test_eval_examples_keep_order_and_original_size(source, config):
    examples = list(eval_examples(source, config))
    assert [example['name'] for example in examples] == [example['name'] for example in source]
    for example, original in zip(examples, source, strict=True):
        np.testing.assert_array_equal(example['mask'], original['mask'])
        np.testing.assert_array_equal(example['original'], original['image'])
        np.testing.assert_array_equal(example['image'], augment.test_example(original['image'], 40))

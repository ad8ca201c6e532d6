import cv2
import numpy as np

from m2snet_jax.benchmark.throughput import StandIn, time_batches
from m2snet_jax.config import load_config
from m2snet_jax.data.datasets.phantoms import phantom


def test_stand_ins_are_enlarged_phantoms_decoded_at_every_access():
    source = StandIn(count=20, size=(90, 70))
    assert len(source) == 20
    example = source[10]
    assert example['image'].shape == (90, 70, 3)
    image, mask = phantom(np.random.default_rng(2))
    np.testing.assert_array_equal(example['image'], cv2.resize(image, (70, 90), interpolation=cv2.INTER_CUBIC))
    np.testing.assert_array_equal(example['mask'], cv2.resize(mask, (70, 90), interpolation=cv2.INTER_NEAREST))
    assert source[10]['image'] is not example['image']


def test_measure_decodes_once_from_the_cache_and_every_time_without_it():
    config = load_config('default', **{'data.size': 40, 'data.sizes': (40,), 'batch': 4, 'data.threads': 1})
    asked = []

    class Counted(StandIn):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    source = Counted(count=8, size=(90, 70))
    result = time_batches(source, config, batches=10)
    assert (result['images'], result['height'], result['width'], result['size'], result['batch']) == (8, 90, 70, 40, 4)
    assert set(result['images_per_second']) == {'cached', 'decoded'}
    assert all(rate > 0 for rate in result['images_per_second'].values())
    assert 50 < result['peak_mib'] < 100_000
    assert asked[0] == 0  # to know its size
    cached, decoded = asked[1:9], asked[9:]
    assert sorted(cached) == list(range(8))
    assert len(decoded) >= 14 * 4
    assert config.data.cache is True

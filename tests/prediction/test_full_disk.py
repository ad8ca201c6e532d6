"""Clips on a full disk: an error names them, and no file with missing frames gets its name."""

import types

import numpy as np
import pytest

from m2snet_jax.errors import InputError
from m2snet_jax.images.clips import ClipWriter
from m2snet_jax.prediction.video import predict_clips

resource = pytest.importorskip('resource', reason='limits of POSIX')


@pytest.fixture
def noise(tmp_path):
    """A clip of 24 frames that cannot be compressed, 16 KB each."""
    random = np.random.default_rng(0)
    writer = ClipWriter(tmp_path / 'noise.mkv', 'FFV1', 12.5, 128, 128)
    for _ in range(24):
        writer.write(np.repeat(random.integers(0, 256, (128, 128, 1), np.uint8), 3, axis=2))
    writer.close()
    return tmp_path / 'noise.mkv'


@pytest.fixture
def small_files():
    """Lets no file of this process grow beyond 100 KB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def grey():
    """A stub of a predictor: the probability is the grey level."""
    return types.SimpleNamespace(
        probabilities=lambda images: [pixels[:, :, :1].astype(np.float32) / 255 for pixels in images]
    )


@pytest.mark.parametrize(
    'settings', [{'frames': 'clip'}, {'frames': 'clip', 'with_masks': True}, {'outline': True}], ids=str
)
def test_a_clip_without_all_its_frames_does_not_get_its_name(tmp_path, noise, small_files, settings):
    (fault,) = predict_clips(grey(), [('noise', noise)], tmp_path / 'out', **settings)
    assert f'{tmp_path}/out' in fault
    assert 'of 24 frames' in fault
    assert '\n' not in fault
    written = {path.suffix for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert written <= {'.json', '.png'}


def test_the_end_of_a_clip_is_complete_or_an_error(tmp_path, small_files):
    writer = ClipWriter(tmp_path / 'a.mkv', 'FFV1', 12.5, 128, 128)
    random = np.random.default_rng(0)
    for _ in range(24):
        writer.write(random.integers(0, 256, (128, 128, 3), np.uint8))
    with pytest.raises(InputError, match=r'a\.mkv: cannot be written, since it holds \d+ of 24 frames; free'):
        writer.close()

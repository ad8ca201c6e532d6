"""Clips: every frame that goes in comes out, and damage is one line."""

import types

import cv2
import numpy as np
import pytest

from m2snet_jax import InputError
from m2snet_jax.images.clips import LOSSLESS, SEEN, Clip, ClipWriter, writable
from m2snet_jax.prediction.video import find_clips, predict_clip, predict_clips, smoothed


def write_clip(path, codec='MJPG', count=24, height=48, width=64):
    writer = ClipWriter(path, codec, 12.5, height, width)
    for number in range(count):
        writer.write(np.full((height, width, 3), number * 10, np.uint8))
    writer.close()
    return path


def bright():
    """A stub of a predictor: the probability is the grey level."""
    return types.SimpleNamespace(
        probabilities=lambda images: [np.full((8, 8, 1), pixels.mean() / 255, np.float32) for pixels in images]
    )


@pytest.mark.parametrize(('codec', 'ending'), [*SEEN, *LOSSLESS])
@pytest.mark.parametrize('size', [(48, 64), (47, 63)])
def test_24_frames_in_are_24_out(tmp_path, codec, ending, size):
    if not writable(codec, ending):
        pytest.skip('this OpenCV does not write it')
    path = write_clip(tmp_path / f'a{ending}', codec, 24, *size)
    frames = list(Clip(path).frames())
    assert len(frames) == 24
    np.testing.assert_allclose([seconds for seconds, _ in frames], np.arange(24) / 12.5, atol=0.002)
    assert all(pixels.shape == (48, 64, 3) for _, pixels in frames)


@pytest.mark.parametrize('frames', ['png', 'clip'])
def test_all_files_of_a_clip(tmp_path, frames):
    seen = []
    path = write_clip(tmp_path / 'a.mkv', 'FFV1')
    count = predict_clip(
        bright(), 'a', path, tmp_path / 'out', frames=frames, outline=True, on_frame=lambda *one: seen.append(one)
    )
    assert count == 24
    assert [one[0] for one in seen] == list(range(24))
    assert len(list(Clip(next((tmp_path / 'out/overlays').iterdir())).frames())) == 24
    if frames == 'png':
        assert len(list((tmp_path / 'out/a').glob('*.png'))) == 24
        levels = [int(cv2.imread(str(tmp_path / f'out/a/{k:06}.png'), 0)[0, 0]) for k in range(24)]
    else:
        levels = [int(pixels[0, 0, 0]) for _, pixels in Clip(tmp_path / 'out/a_maps.mkv').frames()]
    np.testing.assert_allclose(levels, np.arange(24) * 10, atol=2)
    assert [bool(one[2].all()) for one in seen] == [level >= 128 for level in levels]


def test_smoothing_is_the_mean_of_the_last_frames():
    means = [float(one[0, 0, 0]) for one in smoothed((np.full((1, 1, 1), k, np.float32) for k in range(5)), 3)]
    assert means == [0, 0.5, 1, 2, 3]


def test_a_broken_tail_is_one_line_and_what_was_done_is_kept(tmp_path):
    whole = write_clip(tmp_path / 'whole.avi').read_bytes()
    path = tmp_path / 'cut.avi'
    path.write_bytes(whole[: len(whole) * 2 // 3])
    (fault,) = predict_clips(bright(), [('cut', path)], tmp_path / 'out')
    written = len(list((tmp_path / 'out/cut').glob('*.png')))
    assert 0 < written < 24
    assert '\n' not in fault
    assert f'ends after {written} of' in fault


def test_a_text_file_is_no_clip(tmp_path):
    path = tmp_path / 'a.mp4'
    path.write_text('no clip')
    with pytest.raises(InputError, match='cannot be read as a clip'):
        Clip(path)


def test_clips_are_found_beside_images(tmp_path):
    write_clip(tmp_path / 'a.avi', count=1)
    assert find_clips([tmp_path], tmp_path / 'out') == ([('a', tmp_path / 'a.avi')], [])
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((4, 4), np.uint8))
    assert find_clips([tmp_path], tmp_path / 'out')[1] == [tmp_path]

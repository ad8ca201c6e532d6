"""Clips: every frame that goes in comes out, and damage is one line."""

import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_models import write_model

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.images.clips import LOSSLESS, SEEN, Clip, ClipWriter, writable
from m2snet_jax.measurement.findings import FrameFindings
from m2snet_jax.prediction.folders import find_images, predict_files
from m2snet_jax.prediction.video import check_clips, find_clips, predict_clip, predict_clips, smoothed
from m2snet_jax.prediction.writer import Writer


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


@pytest.mark.parametrize(('codec', 'ending'), [one for one in (*SEEN, *LOSSLESS) if one[1] in ('.webm', '.mkv')])
def test_a_truncated_matroska_file_keeps_the_frames_before(tmp_path, codec, ending):
    if not writable(codec, ending):
        pytest.skip('this OpenCV does not write it')
    random = np.random.default_rng(0)
    writer = ClipWriter(tmp_path / f'whole{ending}', codec, 12.5, 48, 64)
    for _ in range(24):
        writer.write(random.integers(0, 256, (48, 64, 3), np.uint8))
    writer.close()
    whole = (tmp_path / f'whole{ending}').read_bytes()
    path = tmp_path / f'cut{ending}'
    path.write_bytes(whole[: len(whole) // 2])
    (fault,) = predict_clips(bright(), [('cut', path)], tmp_path / 'out', frames='clip')
    kept = list(Clip(tmp_path / 'out/cut_maps.mkv').frames())
    assert 0 < len(kept) < 24
    assert fault == f'{path}: ends after {len(kept)} of 24 frames; those before are kept'


def test_a_truncated_mp4_is_one_line(tmp_path):
    whole = write_clip(tmp_path / 'whole.mp4', 'mp4v').read_bytes()
    path = tmp_path / 'cut.mp4'
    path.write_bytes(whole[: len(whole) // 2])  # its index is at the end
    (fault,) = predict_clips(bright(), [('cut', path)], tmp_path / 'out')
    assert fault.startswith(f'{path}: cannot be read as a clip')
    assert '\n' not in fault
    assert not (tmp_path / 'out').exists()


def boxes_with(data, kind):
    """Yields the positions in an MP4 file of the boxes from the outermost down to `kind`."""
    start, end = 0, len(data)
    for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl', kind):
        while data[start + 4 : start + 8] != name:
            start += int.from_bytes(data[start : start + 4], 'big')
            assert start < end
        yield start
        start += 8


def test_time_stamps_are_those_of_a_variable_rate(tmp_path):
    data = bytearray(write_clip(tmp_path / 'constant.mp4', 'mp4v').read_bytes())
    *outer, table = boxes_with(data, b'stts')
    count, step = (int.from_bytes(data[table + k : table + k + 4], 'big') for k in (16, 20))
    assert count == 24
    # Half of the frames are shown for half as long, the others for half as long again: the clip lasts as long.
    entries = [2, 12, step // 2, 12, step * 3 // 2]
    data[table + 12 : table + 24] = b''.join(value.to_bytes(4, 'big') for value in entries)
    for position in (*outer, table):
        data[position : position + 4] = (int.from_bytes(data[position : position + 4], 'big') + 8).to_bytes(4, 'big')
    path = tmp_path / 'variable.mp4'
    path.write_bytes(data)
    seconds = [one for one, _ in Clip(path).frames()]
    np.testing.assert_allclose(seconds, np.cumsum([0] + [0.04] * 12 + [0.12] * 11), atol=0.002)


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


def test_maps_and_masks_of_a_clip_are_those_of_its_frames(tmp_path):
    path = write_clip(tmp_path / 'a.mkv', 'FFV1', 5)
    for frames in ('png', 'clip'):
        predict_clip(bright(), 'a', path, tmp_path / frames, frames=frames, with_masks=True, threshold=0.1)
    for clip, folder in (('a_maps.mkv', 'a'), ('masks/a.mkv', 'masks/a')):
        shown = [pixels for _, pixels in Clip(tmp_path / 'clip' / clip).frames()]
        files = sorted((tmp_path / 'png' / folder).iterdir())
        assert len(shown) == len(files) == 5
        for pixels, file in zip(shown, files, strict=True):
            np.testing.assert_array_equal(pixels, cv2.imread(str(file)))
    levels = [int(cv2.imread(str(tmp_path / f'png/masks/a/{number:06}.png'), 0).max()) for number in range(5)]
    assert levels == [0, 0, 0, 255, 255]  # grey levels 0, 10 … 40, cut at 25.5


def test_a_clip_that_is_predicted_again_replaces_its_frames(tmp_path):
    path = write_clip(tmp_path / 'a.mkv', 'FFV1', 3)
    predict_clip(bright(), 'a', path, tmp_path / 'out')
    (tmp_path / 'out/a/000003.png').write_bytes(b'of a call that went further')
    (tmp_path / 'out/a/notes.png').write_bytes(b'of somebody else')
    assert predict_clip(bright(), 'a', path, tmp_path / 'out') == 3
    names = sorted(file.name for file in (tmp_path / 'out/a').iterdir())
    assert names == ['000000.png', '000001.png', '000002.png', 'notes.png']


@pytest.mark.parametrize('settings', [{'smooth': 2}, {'frames': 'clip'}, {'count': 2}])
def test_maps_made_otherwise_are_refused(tmp_path, settings):
    path = write_clip(tmp_path / 'a.mkv', 'FFV1', 3)
    predict_clip(bright(), 'a', path, tmp_path / 'out')
    before = {file: file.read_bytes() for file in (tmp_path / 'out').rglob('*') if file.is_file()}
    other = {'frames': 'png', 'smooth': 1} | {key: value for key, value in settings.items() if key != 'count'}
    if 'count' in settings:
        write_clip(path, 'FFV1', settings['count'])
    key = 'clip' if 'count' in settings else next(iter(settings))
    with pytest.raises(InputError, match=f'written with another {key}; name another --output'):
        predict_clip(bright(), 'a', path, tmp_path / 'out', **other)
    with pytest.raises(InputError, match=f'written with another {key}'):
        check_clips([('a', path)], [], tmp_path / 'out', **other)
    assert {file: file.read_bytes() for file in (tmp_path / 'out').rglob('*') if file.is_file()} == before


def test_maps_of_images_and_of_frames_do_not_mix(tmp_path):
    path, output = write_clip(tmp_path / 'a.mkv', 'FFV1', 1), tmp_path / 'out'
    image = [('a/000000', tmp_path / 'a/000000.png')]
    with pytest.raises(InputError, match='that of a frame of the clip a'):
        check_clips([('a', path)], image, output, 'png', 1)
    (output / 'a').mkdir(parents=True)
    (output / 'a/000000.png').write_bytes(b'the map of an image')
    with pytest.raises(InputError, match='holds maps that are not of the clip a'):
        check_clips([('a', path)], [], output, 'png', 1)
    (output / 'a/000000.png').unlink()
    predict_clip(bright(), 'a', path, output)
    with pytest.raises(InputError, match='that of a frame of the clip a'):
        check_clips([], image, output, 'png', 1)


def test_clips_have_patterns_and_must_exist(tmp_path):
    for name in ('a_left', 'b_left', 'c_right'):
        write_clip(tmp_path / f'{name}.avi', count=1)
    found, rest = find_clips([tmp_path / '*_left.avi'], tmp_path / 'out')
    assert ([name for name, _ in found], rest) == (['a', 'b'], [])
    with pytest.raises(InputError, match='no such file'):
        find_clips([tmp_path / 'd.avi'], tmp_path / 'out')


def memory():
    """Returns the memory of this process in MB."""
    fields = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return int(fields['VmRSS'].split()[0]) / 1024


@pytest.mark.slow
@pytest.mark.usefixtures('compiled_quickly')
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the memory of a process is read as on Linux')
def test_memory_does_not_grow_over_a_clip(tmp_path, capsys):
    """Also prints frames/s beside the images/s of the same frames in a folder."""
    tiny = load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48})
    predictor = load_model(write_model(tmp_path / 'tiny.safetensors'), config=tiny)
    count, tissue = 300, np.repeat(np.linspace(40, 160, 640).astype(np.uint8)[None, :, None], 480, axis=0)
    tissue = np.ascontiguousarray(np.broadcast_to(tissue, (480, 640, 3)))
    writer = ClipWriter(tmp_path / 'clip.mp4', 'mp4v', 25.0, 480, 640)
    (tmp_path / 'frames').mkdir()
    for number in range(count):
        pixels = tissue.copy()
        cv2.circle(pixels, (100 + number, 240), 60, (200, 120, 90), -1)
        writer.write(pixels)
        cv2.imwrite(str(tmp_path / f'frames/{number:06}.png'), pixels)
    writer.close()
    predictor.probabilities([tissue] * 8)  # compiles
    found, measured = FrameFindings(smallest=50), []

    def on_frame(*frame):
        found.add('clip', *frame)
        measured.append((time.perf_counter(), memory()))

    start = time.perf_counter()
    predict_clip(predictor, 'clip', tmp_path / 'clip.mp4', tmp_path / 'clips', on_frame=on_frame)
    of_clip = count / (time.perf_counter() - start)
    after_a_second = next(value for moment, value in measured if moment - start >= 1)
    assert found.frames == count
    assert measured[-1][1] - after_a_second < 100
    images = find_images([tmp_path / 'frames'], tmp_path / 'maps')
    start = time.perf_counter()
    predict_files(predictor, images, Writer(tmp_path / 'maps', predictor), 8)
    of_folder = count / (time.perf_counter() - start)
    with capsys.disabled():
        print(f'\n{of_clip:.1f} frames/s, {of_folder:.1f} images/s, ratio {of_clip / of_folder:.2f}', end='; ')
        print(f'memory {after_a_second:.0f} MB after a second, {measured[-1][1]:.0f} MB at the end')

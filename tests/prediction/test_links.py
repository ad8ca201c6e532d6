"""Links that lead nowhere are reported, and hide no file of the same name."""

import types

import numpy as np
from data_trees import image_of, write

from m2snet_jax.images.clips import ClipWriter
from m2snet_jax.prediction.folders import find_images
from m2snet_jax.prediction.video import check_clips, find_clips, predict_clips


def test_a_link_with_the_name_of_an_image_does_not_replace_it(tmp_path, capsys):
    write(tmp_path / 'in/a.png', image_of(0))
    (tmp_path / 'in/a.tif').symlink_to('/nowhere/a.tif')
    assert find_images([tmp_path / 'in'], tmp_path / 'out') == [('a', tmp_path / 'in/a.png')]
    assert f'warning: {tmp_path}/in/a.tif: is a link to /nowhere/a.tif, which is not there' in capsys.readouterr().err


def test_a_link_to_no_clip_is_a_fault(tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    writer = ClipWriter(tmp_path / 'in/b.mkv', 'FFV1', 12.5, 24, 40)
    writer.write(np.zeros((24, 40, 3), np.uint8))
    writer.close()
    (tmp_path / 'in/b.avi').symlink_to('/nowhere/b.avi')
    (tmp_path / 'in/c.mp4').symlink_to('/nowhere/c.mp4')
    clips, rest = find_clips([tmp_path / 'in'], tmp_path / 'out')
    assert (dict(clips), rest) == ({'b': tmp_path / 'in/b.mkv', 'c': tmp_path / 'in/c.mp4'}, [])
    assert 'in/b.avi: is a link to /nowhere/b.avi, which is not there' in capsys.readouterr().err
    check_clips(clips, [], tmp_path / 'out', 'png', 1)
    black = types.SimpleNamespace(probabilities=lambda images: [np.zeros((8, 8, 1), np.float32) for _ in images])
    (fault,) = predict_clips(black, clips, tmp_path / 'out')
    assert fault.startswith(f'{tmp_path}/in/c.mp4: is a link to /nowhere/c.mp4, which is not there')
    assert (tmp_path / 'out/b/000000.png').exists()

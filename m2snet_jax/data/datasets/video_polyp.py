"""Polyps in colonoscopy videos: clips of CVC-ClinicDB (CVC-612) and CVC-ColonDB (CVC-300), split 60/20/20 by clip.

    ROOT/
      VPS-TrainSet/  CVC-ClinicDB-612, CVC-ColonDB-300, each with  Train/CLIP/  Frame/ *.jpg   GT/ *.png
      VPS-TestSet/   CVC-ColonDB-300, CVC-ClinicDB-612-Valid, CVC-ClinicDB-612-Test, each with
                     Frame/CLIP/ *.jpg   GT/CLIP/ *.png

The folders may be doubled as some zip tools leave them; png, jpg, bmp and tif are read. The 29 clips of CVC-612 and
the 12 of CVC-300 are never divided; those for training are mixed. Frames are named CLIP/FRAME, those for training
SET/CLIP/FRAME. Test sets: CVC-300-TV (what VPS-TestSet calls CVC-ColonDB-300: test and validation clips),
CVC-612-V (…-Valid) and CVC-612-T (…-Test). One that is missing is left out. Without VPS-TrainSet, the frames in
IVPS-TrainSet/Frame and GT are trained on; beside it they are left out, being the same frames and other sets' images.
So are other sets in VPS-TrainSet, such as ASU-Mayo.

Source: the split of PNS-Net (Ji et al., MICCAI 2021), as zip files on Google Drive:
  train  https://drive.google.com/file/d/1GjYKjyIrQciyii09GEwyLbck2DauV_rw
  test   https://drive.google.com/file/d/1jjZKBcb1zlRn-TgBaxQ8mjoQj8LG8z4p
Licence: the CVC sets are for research. See each set's own page.
Traps: frames of one clip are nearly alike, so that the number of clips, not of frames, says how sure a score is; and
the image polyp sets hold frames of the same videos, so a model trained on those has seen these.
"""

from typing import Any

from m2snet_jax.data.download import fetch
from m2snet_jax.data.pairs import (
    find_root,
    find_subfolder,
    image_and_mask_folders,
    pairs_in,
    subfolders,
    unwrap_subfolder,
)
from m2snet_jax.data.patterns import name_of
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.errors import InputError

TRAIN_SETS = ('CVC-ClinicDB-612', 'CVC-ColonDB-300')
TEST_SETS = {  # name: folder
    'CVC-300-TV': 'CVC-ColonDB-300',
    'CVC-612-V': 'CVC-ClinicDB-612-Valid',
    'CVC-612-T': 'CVC-ClinicDB-612-Test',
}
ARCHIVES = {  # folder: id on Google Drive
    'VPS-TrainSet': '1GjYKjyIrQciyii09GEwyLbck2DauV_rw',
    'VPS-TestSet': '1jjZKBcb1zlRn-TgBaxQ8mjoQj8LG8z4p',
}


def find(config: Any) -> Source:
    """Returns the source of a folder in the layout above: its pairs of frames and masks.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: polyps are one class')

    def is_root(folder):
        return any(unwrap_subfolder(folder, name) for name in ('VPS-TrainSet', 'IVPS-TrainSet', 'VPS-TestSet'))

    given = config.data.root or fetch('video_polyp', ARCHIVES, __doc__)
    root = find_root(given, is_root, __doc__)
    problems, warnings = [], []
    splits = {'train': _train_pairs(root, problems, warnings), **_test_pairs(root, problems, warnings)}
    return source_of(root, splits, problems=problems, warnings=warnings)


def _train_pairs(root, problems, warnings):
    """Returns the pairs of the clips for training, else of the frames for training."""
    clips, frames = unwrap_subfolder(root, 'VPS-TrainSet'), unwrap_subfolder(root, 'IVPS-TrainSet')
    if clips is None and frames is None:
        raise InputError(f'--config.data.root={root}: VPS-TestSet found, VPS-TrainSet is missing\n\n{__doc__}')
    if clips is None:
        return pairs_in(*_frames_and_masks(frames), problems, warnings)
    if frames is not None:
        warnings.append(f'{frames}: left out, because {clips} is there')
    pairs = []
    for video_set in subfolders(clips):
        if video_set.name.lower() not in {name.lower() for name in TRAIN_SETS}:
            warnings.append(f'{video_set}: left out, being none of {", ".join(TRAIN_SETS)}')
            continue
        train = find_subfolder(video_set, 'Train')
        if train is None:
            raise InputError(f'{video_set}: no folder Train in it\n\n{__doc__}')
        for clip in subfolders(train):
            prefix = name_of(f'{video_set.name}/{clip.name}') + '/'
            pairs += pairs_in(*_frames_and_masks(clip), problems, warnings, prefix)
    if not pairs and not problems:
        raise InputError(f'{clips}: no clips found in it\n\n{__doc__}')
    return pairs


def _test_pairs(root, problems, warnings):
    """Returns {test set: pairs}."""
    tests, splits = unwrap_subfolder(root, 'VPS-TestSet'), {}
    for name, folder_name in TEST_SETS.items():
        folder = tests and unwrap_subfolder(tests, folder_name)
        if folder is None:
            warnings.append(f'{root}: test set {name} (VPS-TestSet/{folder_name}) is missing and left out')
            continue
        frames, masks = _frames_and_masks(folder)
        splits[name] = []
        mask_clips = {clip.name: clip for clip in subfolders(masks)}
        for clip in subfolders(frames):
            if clip.name in mask_clips:
                mask_clip = mask_clips.pop(clip.name)
                splits[name] += pairs_in(clip, mask_clip, problems, warnings, name_of(clip.name) + '/')
            else:
                problems.append(f'{clip}: no clip {clip.name!r} in {masks}')
        problems += [f'{clip}: no clip {clip.name!r} in {frames}' for clip in mask_clips.values()]
        if not splits[name] and not problems:
            problems.append(f'{frames}: no clips found in it')
    if not splits:
        raise InputError(f'--config.data.root={root}: none of the test sets found in VPS-TestSet\n\n{__doc__}')
    return splits


def _frames_and_masks(folder):
    return image_and_mask_folders(folder, ('Frame',), ('GT',), __doc__)

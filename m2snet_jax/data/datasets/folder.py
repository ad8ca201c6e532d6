"""Your own images and masks, paired by file name.

    ROOT/
      images/   a.png  b.jpg  c.tif …      png, jpg, jpeg, bmp, tif, tiff; 8 or 16 bits, grey or colour
      masks/    a.png  b.png  c.png …      same names up to the ending, same sizes as the images
      train.txt, test.txt                  optional: one name a line

Masks: 0/255, 0/1, or grey levels in between as JPEG leaves them; or class indices 0 (background) to
`data.classes`. With one of the two lists, the rest is the other half; with none, a hash of each name (and of
`data.seed`) puts about one image in five into the test set, so that images added later move no others.

Source and licence: yours. Trap: several pictures of one patient should all be in train or all in test; use the lists.
"""

import hashlib

import tensorflow_datasets as tfds
from absl import logging

from m2snet_jax.data import files, records
from m2snet_jax.errors import InputError

TEST_SHARE = 0.2


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images and masks of one folder."""

    name = 'folder'
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded through TFDS

    def _info(self):
        return records.info(self)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(pairs) for split, pairs in self.builder_config.splits.items()}

    def _generate_examples(self, pairs):
        return records.records_of(pairs, self.builder_config.classes)


def find(config):
    """Returns the source of a folder: its pairs of files, split.

    Raises:
        InputError: naming the folder, file or list that cannot be used.
    """

    def folders(top):
        return files.child(top, 'images', 'image'), files.child(top, 'masks', 'mask')

    root = files.find_top(config.data.root, lambda top: all(folders(top)), __doc__)
    pairs = files.pairs_in(*folders(root), root)
    try:
        splits = _split(pairs, root, config.data.seed)
    except InputError:
        for pair in pairs:  # a file that cannot be read is the earlier fault
            records.read_pair(pair)
        raise
    names = {split: [pair.name for pair in members] for split, members in splits.items()}
    key = files.tree_hash(pairs, root, names, config.data.classes)
    return records.Source(name=key, description=str(root), splits=splits, classes=config.data.classes)


def _split(pairs, root, seed):
    """Returns {'train': pairs, 'test': pairs}, by lists or by hash, neither of them empty."""
    names = {pair.name for pair in pairs}
    train, test = (_read_list(root / f'{split}.txt', names) for split in ('train', 'test'))
    if train is None and test is None:
        train, test = _split_by_hash(names, seed)
    elif train is None or test is None:
        train, test = train or names - test, test or names - train
    elif train & test:
        raise InputError(f'{root / "test.txt"}: {min(train & test)!r} is in train.txt as well; keep it in one list')
    unused = len(names - train - test)
    if unused:
        logging.warning(
            '%s: %d of %d images are in neither train.txt nor test.txt and left out', root, unused, len(names)
        )
    splits = {
        split: [pair for pair in pairs if pair.name in chosen] for split, chosen in (('train', train), ('test', test))
    }
    for split, members in splits.items():
        if not members:
            raise InputError(f'{root}: no image is left for {split}; {len(pairs)} found, at least two are needed')
    return splits


def _read_list(path, names):
    """Returns the set of names in a list, given with or without their ending, or None without such a file."""
    if not path.is_file():
        return None
    lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
    chosen = set()
    for line in filter(None, lines):
        stem = line if line in names else line.rpartition('.')[0]
        if stem not in names:
            raise InputError(f'{path}: no image is named {line!r}; correct the list')
        chosen.add(stem)
    if not chosen:
        raise InputError(f'{path}: names no image; fill the list or remove it')
    return chosen


def _split_by_hash(names, seed):
    """Returns the sets of training and test names."""
    places = {name: int(hashlib.sha256(f'{seed}/{name}'.encode()).hexdigest()[:8], 16) / 2**32 for name in names}
    test = {name for name, place in places.items() if place < TEST_SHARE}
    if not test:
        test = {min(places, key=places.get)}
    if len(test) == len(names) > 1:
        test.remove(max(places, key=places.get))
    return names - test, test

"""Your own images and masks, paired by file name.

    ROOT/
      images/   a.png  b.jpg  c.tif …      png, jpg, bmp, tif, gif …; 8 or 16 bits, grey or colour
                d.dcm  ct1.nii.gz …        DICOM images and NIfTI volumes, with `data.window`
                patient1/e.png …           subfolders: the name is patient1/e
      masks/    a.png  b.png  c.png …      same names up to the ending, same sizes as the images
                d.png  ct1.nii.gz …        of a volume, a volume with the same grid
                patient1/e.png …
      train.txt, test.txt                  optional: one name a line
      folds.csv                            optional, with `data.fold`: a table name,fold

In any other layout `data.images` and `data.masks` name the folders, or patterns in which `*` is the name (see
m2snet_jax/data/patterns.py). A prefix or suffix that all masks share, as `_mask`, is left out.

Masks: 0/255, 0/1, or grey levels in between as JPEG leaves them; or class indices 0 (background) to
`data.classes`. Where the first part of every name begins with train, test or val, as in images/train/a.png, it is the
split: `test` and `val` are test sets. Else, with one of the two lists, the rest is the other half; with none, a hash of
each name (and of `data.seed`) puts about one image in five into the test set, so that images added later move no
others. With `data.fold`, images are dealt to `data.folds` folds and that one is the test. With
`data.group_duplicates`, near-duplicates stay together.

The images of one subfolder stay on one side of every split, by the hash of its name. Lists and folds may name it in
place of its images. Each axial slice of a volume is an image `ct1_000`, `ct1_001` …; all of a volume, and DICOM images
of one study, stay together in the same way.

Source and licence: yours. Trap: several pictures of one patient should all be in train or all in test; give each
patient a subfolder, or use the lists.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from m2snet_jax.data.pairs import Pair, find_root, find_subfolder, pairs_in
from m2snet_jax.data.patterns import ENDINGS, describe_content, holds_files, name_of, valid_text
from m2snet_jax.data.proposals import propose, quoted
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.data.splits import divided_group_problems, groups_of, hash_fraction, names_by_entry, split_by_fold
from m2snet_jax.data.subfolders import group_by_folder, published_split
from m2snet_jax.errors import InputError
from m2snet_jax.images import dicom, nifti
from m2snet_jax.images.formats import CLINICAL_ENDINGS, addresses, reader_of, split_name

HAS_FOLDS = True  # reads data.fold
TEST_SHARE = 0.2
READ = ENDINGS + CLINICAL_ENDINGS
FOLDERS = {'images': ('images', 'image'), 'masks': ('masks', 'mask')}
# A folder of truths beside one named `mask`, which then holds something else, as fields of view.
TRUTHS = re.compile(r'manual|truth|\bgt\b|label|annotation', re.IGNORECASE)


def find(config: Any) -> Source:
    """Returns the source of a folder: its pairs of files, split.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    root, images, masks = _locate(config.data)
    problems, split_problems, warnings = [], [], []
    pairs = pairs_in(images, masks, problems, warnings, endings=READ)
    if not pairs and problems and (proposal := propose(root)):
        problems[-1] += f'; {proposal}'
    published = published_split(pairs, root, config.data, warnings)
    splits = {}
    for split, members in (published or {'': pairs}).items():
        grouped = group_by_folder(members, root, warnings)
        splits[split] = [part for pair in grouped for part in _slices(pair, problems)]
    if published:
        found, folds = splits, {}
    elif not pairs and problems:
        found, folds = {'train': [], 'test': []}, {}
    else:
        found, folds = _split(splits[''], root, config, split_problems, warnings)
    return source_of(
        root,
        found,
        classes=config.data.classes,
        window=config.data.window,
        folds=folds,
        problems=problems,
        split_problems=split_problems,
        warnings=warnings,
    )


def _locate(data):
    """Returns the folder of the data, and the folders or patterns of the images and of the masks."""
    given = {'images': data.images, 'masks': data.masks}
    given = {key: where for key, where in given.items() if where is not None}

    def wheres(top):
        """Returns the folders or patterns below `top`, None where there is nothing."""
        found = {}
        for key, names in FOLDERS.items():
            if key not in given:
                found[key] = find_subfolder(top, *names)
            else:
                where = top / given[key]
                found[key] = where if holds_files(where, READ) else None
        return found

    root = Path('.') if data.root is None and len(given) == len(FOLDERS) else data.root
    try:
        root = find_root(root, lambda top: all(wheres(top).values()), __doc__)
    except InputError as error:
        root = Path(data.root or '.').expanduser()
        if data.root is None or not root.is_dir():
            raise
        message = str(error)
        for key, where in wheres(root).items():
            if key in given and where is None:
                message = f'--config.data.{key}={given[key]}: no image files there; {describe_content(root)}'
        proposal = propose(root)
        raise InputError(f'{message.partition(chr(10))[0]}; {proposal}' if proposal else message) from None
    found = wheres(root)
    if 'masks' not in given:
        _check_only_masks(found['masks'])
    return root, found['images'], found['masks']


def _check_only_masks(masks):
    """Raises InputError where a folder beside that of the masks has a name that speaks more of truths."""
    for other in (path for path in sorted(masks.parent.iterdir()) if path.is_dir()):
        if other != masks and TRUTHS.search(other.name) and holds_files(other, READ):
            choices = ' or '.join(f'--config.data.masks={quoted(folder.name)}' for folder in (other, masks))
            raise InputError(f'{masks.parent}: holds both {masks.name} and {other.name}; name the masks with {choices}')


def _slices(pair, problems):
    """Returns the pairs of the slices of a volume, or a pair itself; what has none gives `problems` a line."""
    (mask,), reader = pair.masks, reader_of(pair.image)
    try:
        if (reader is nifti) != (reader_of(mask) is nifti):
            raise InputError(f'{mask}: a NIfTI volume has a NIfTI mask and nothing else has; convert one of the two')
        images = addresses(pair.image)
        if reader is nifti:
            nifti.check_same_grid(mask, pair.image)
            group = pair.group or pair.name
            return [Pair(f'{pair.name}_{image.name}', image, (mask / image.name,), group=group) for image in images]
        if len(images) > 1:
            raise InputError(f'{pair.image}: holds {len(images)} frames; give each a file and a mask of its own')
        study = dicom.study_of(pair.image) if reader is dicom else ''
        return [dataclasses.replace(pair, group=study if pair.group in ('', pair.name) and study else pair.group)]
    except InputError as error:
        problems.append(str(error))
        return []


def _split(pairs, root, config, problems, warnings):
    """Returns {'train': pairs, 'test': pairs}, by folds, by lists or by hash, and {name: fold}."""
    names = [pair.name for pair in pairs]
    lists = {split: _read_list(root / f'{split}.txt', pairs, problems) for split in ('train', 'test')}
    if config.data.fold is not None:
        for split, chosen in lists.items():
            if chosen is not None:
                raise InputError(
                    f'{root / split}.txt: lists a split, data.fold={config.data.fold} is another; unset one'
                )
        return split_by_fold(pairs, root, config, problems)
    train, test = lists['train'], lists['test']
    if test is None:
        train, test = _split_by_hash(pairs, config.data) if train is None else (train, set(names) - train)
    elif train is None:
        train = set(names) - test
    both = train & test
    problems += [f'{root / "test.txt"}: {name!r} is in train.txt as well; keep it in one list' for name in sorted(both)]
    train = train - both
    sides = {**dict.fromkeys(train, 'train'), **dict.fromkeys(test, 'test')}
    problems += divided_group_problems(pairs, sides, root / 'train.txt or test.txt')
    unused = len(set(names) - train - test)
    if unused:
        warnings.append(f'{root}: {unused} of {len(names)} images are in neither train.txt nor test.txt and left out')
    found = {
        split: [pair for pair in pairs if pair.name in chosen] for split, chosen in (('train', train), ('test', test))
    }
    problems += [
        f'{root}: no image is left for {split}; {len(pairs)} found, at least two are needed'
        for split, members in found.items()
        if not members
    ]
    return found, {}


def _read_list(path, pairs, problems):
    """Returns the set of names in a list, given with or without their ending, or None without such a file."""
    if not path.is_file():
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
    except UnicodeDecodeError:
        raise InputError(f'{path}: is no UTF-8 text; save it as such') from None
    chosen, known = set(), names_by_entry(pairs)
    for line in filter(None, map(valid_text, lines)):
        stem = line if line in known else name_of(Path(line).with_name(split_name(line)[0]))
        if stem in known:
            chosen.update(known[stem])
        else:
            problems.append(f'{path}: no image is named {line!r}; correct the list')
    if not any(lines):
        problems.append(f'{path}: names no image; fill the list or remove it')
    return chosen


def _split_by_hash(pairs, data):
    """Returns the sets of training and test names, groups (see `splits.groups_of`) going together."""
    first, fractions = {}, {}
    for pair, group in zip(pairs, groups_of(pairs, data), strict=True):
        fractions[pair.name] = hash_fraction(first.setdefault(group, pair.group or pair.name), data.seed)
    test = {name for name, fraction in fractions.items() if fraction < TEST_SHARE}
    lowest, highest = min(fractions.values(), default=0), max(fractions.values(), default=0)
    if not test:
        test = {name for name, fraction in fractions.items() if fraction == lowest}
    if len(test) == len(fractions) and lowest < highest:
        test = {name for name in test if fractions[name] < highest}
    return set(fractions) - test, test

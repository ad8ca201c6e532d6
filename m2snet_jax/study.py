"""A study: variants of one config, trained on several seeds and folds, in the order of their importance.

A study file, as those in `configs/studies`, is a Python file with `get_study()`, which returns a dict of

    config      the config that is varied, as `--config` names it elsewhere: 'busi:small'
    about       what is asked, in a sentence
    changes     {dotted key: value} for all variants; by default none
    seeds       of every variant that names none of its own; by default (0,)
    folds       likewise; by default none, for datasets without folds
    variants    list of dicts, the most important first; the others are compared with the first:
        name            also of its folder: letters, digits, _ and -
        about           what is different, in a sentence
        changes         {dotted key: value}; by default none
        seeds, folds    its own
        weights_of      an earlier variant; each run starts from what that one has trained on the same seed and fold
        against         a variant to be compared with as well
        reference       a model, among the scores of another program, to be compared with as well

A cell is one variant on one seed and fold, an ordinary run in `WORKDIR/<variant>/fold<F>-seed<S>`, or `seed<S>` where
there are no folds.
"""

import copy
import dataclasses
import difflib
import json
import re
from pathlib import Path

from m2snet_jax.config import FREE_KEYS, changed_keys, check_config, flatten, load_config, load_file, to_json
from m2snet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant of a study; see the head of study.py."""

    name: str
    about: str
    changes: dict = dataclasses.field(default_factory=dict)
    seeds: tuple = (0,)
    folds: tuple = (None,)
    weights_of: str | None = None
    against: str | None = None
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study file says; see the head of study.py."""

    name: str
    about: str
    config: str
    changes: dict
    variants: tuple


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant on one seed and fold.

    Attributes:
        variant, seed, fold: the variant's name; fold is None where there are none.
        config: resolved.
        folder: of the run; that of an earlier cell where both have the same config.
        source: the Cell whose weights it starts from, or None.
        name: of variant, fold and seed, for people.
    """

    variant: str
    seed: int
    fold: int | None
    config: object
    folder: Path
    source: object
    name: str

    @property
    def is_finished(self):
        """Whether the run is trained and scored."""
        try:
            return 'step' in json.loads((self.folder / 'scores' / 'summary.json').read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return False


def load_study(name):
    """Loads a study file.

    Args:
        name: its path, or the bare name of one of ours, as 'busi'.

    Raises:
        InputError: no such file, or something in it that cannot be used.
    """
    get_study, path, variant = load_file(name, 'get_study', 'studies')
    if variant:
        raise InputError(f'--config={name}: a study takes no :{variant}')
    try:
        given = dict(get_study())
        common = {key: given.pop(key) for key in ('seeds', 'folds') if key in given}
        variants = tuple(_variant({**common, **one}, path) for one in given.pop('variants'))
        study = Study(path.stem, given.pop('about'), given.pop('config'), _plain(given.pop('changes', {})), variants)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'{path}: not a study ({type(error).__name__}: {error}); see m2snet_jax/study.py') from None
    if given:
        raise InputError(f'{path}: unknown entry {next(iter(given))!r}; see m2snet_jax/study.py')
    _check_names(study, path)
    return study


def base_config(study):
    """Returns the config that all variants of a study change, with the changes that they have in common."""
    return _changed(load_config(study.config), study.changes, f'study {study.name}')


def cells_of(study, config, workdir):
    """Returns the cells of a study, in the order in which they are run.

    Args:
        study: as `load_study` returns it.
        config: what `base_config` returned, with the changes of the command line.
        workdir: folder of the study.

    Raises:
        InputError: a key or value that no config has; the message names the variant.
    """
    cells, by_content = {}, {}
    for variant in study.variants:
        for seed in variant.seeds:
            for fold in variant.folds:
                place = f'seed{seed}' if fold is None else f'fold{fold}-seed{seed}'
                source = None if variant.weights_of is None else cells[variant.weights_of, seed, fold]
                own = {'seed': seed} | ({} if fold is None else {'data.fold': fold})
                if source is not None:
                    own['model.weights'] = str(source.folder.absolute())
                changed = _changed(config, {**variant.changes, **own}, f'variant {variant.name!r}')
                shaping = {k: v for k, v in flatten(to_json(changed)).items() if not k.startswith(FREE_KEYS)}
                content = json.dumps(shaping)
                name = f'{variant.name}, seed {seed}' + ('' if fold is None else f', fold {fold}')
                folder = by_content.setdefault(content, Path(workdir) / variant.name / place)
                cells[variant.name, seed, fold] = Cell(variant.name, seed, fold, changed, folder, source, name)
    return list(cells.values())


def check_folder(cell):
    """Raises InputError if the folder of a cell holds a run of another config.

    Where the lists of `data.exclude` and the weights of another cell lie may differ: the manifest's hash and the cell
    itself say what they are.
    """
    path = cell.folder / 'config.json'
    if not path.exists():
        return
    try:
        recorded = json.loads(path.read_text(encoding='utf-8'))['config']
    except (OSError, ValueError, KeyError):
        raise InputError(f'{path}: cannot be read; remove {cell.folder} to run it anew') from None
    recorded = flatten(to_json(load_config('default'))) | flatten(recorded)  # it may be older than a key
    moving = ('data.exclude',) if cell.source is None else ('data.exclude', 'model.weights')
    changes = [f'{key} {old} → {new}' for key, old, new in changed_keys(cell.config, recorded) if key not in moving]
    if changes:
        raise InputError(
            f'{cell.folder}: holds a run of another config, changed: {", ".join(changes)}; name another --workdir, or '
            'remove that folder'
        )


def _variant(entry, path):
    known = {field.name for field in dataclasses.fields(Variant)}
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise InputError(
            f'{path}: variant {entry.get("name")!r} has an unknown entry {unknown[0]!r}; there are '
            f'{", ".join(sorted(known))}'
        )
    entry |= {key: tuple(entry[key]) for key in ('seeds', 'folds') if key in entry}
    return Variant(**{**entry, 'changes': _plain(entry.get('changes', {}))})


def _check_names(study, path):
    """Raises InputError for names that are missing, given twice or cannot be used."""
    seen = {}
    if not study.variants:
        raise InputError(f'{path}: names no variants')
    for variant in study.variants:
        where = f'{path}: variant {variant.name!r}'
        if not re.fullmatch(r'[A-Za-z0-9_-]+', str(variant.name)):
            raise InputError(f'{where}: a name has letters, digits, _ and - alone, it is also a folder')
        if variant.name in seen:
            raise InputError(f'{where} stands there twice; name one of them differently')
        if not variant.seeds or not variant.folds:
            raise InputError(f'{where}: has no seeds or no folds')
        if set(variant.changes) & {'seed', 'data.fold'}:
            raise InputError(f'{where}: changes seed or data.fold; list them under seeds and folds')
        if variant.weights_of is not None:
            source = seen.get(variant.weights_of)
            if source is None:
                raise InputError(f'{where}: weights_of names {variant.weights_of!r}, which is no earlier variant')
            if not set(variant.seeds) <= set(source.seeds) or not set(variant.folds) <= set(source.folds):
                raise InputError(f'{where}: has seeds or folds on which {source.name} is not trained')
        seen[variant.name] = variant
    for variant in study.variants:
        if variant.against not in (None, *seen):
            raise InputError(f'{path}: variant {variant.name!r}: against names {variant.against!r}, no such variant')


def _changed(config, changes, where):
    """Returns a checked copy of a config with changes."""
    changed, known = copy.deepcopy(config), flatten(config)
    for key, value in changes.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f'did you mean {near[0]}?' if near else 'the keys stand in configs/default.py'
            raise InputError(f'{where}: no such key {key}; {hint}')
        try:
            with changed.unlocked():
                changed.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise InputError(f'{where}: {key}={value!r} does not fit: {" ".join(str(error).split())}') from None
    try:
        check_config(changed)
    except InputError as error:
        raise InputError(f'{where}: {error}') from None
    return changed


def _plain(changes):
    """Returns changes with paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}

"""A study: variants of one config, trained on several seeds and folds, in the order of their importance.

A study file, as those in `configs/studies`, is a Python file with `get_study()`, which returns a dict of

    config      the config that is varied, as `--config` names it elsewhere: 'busi:small'
    about       what is asked, in a sentence
    changes     {dotted key: value} for all variants; by default none
    seeds       of every variant without its own; by default (0,)
    folds       likewise; by default none, for datasets without folds
    variants    list of dicts, the most important first; the others are compared with the first:
        name            also of its folder: letters, digits, _ and -
        about           what differs, in a sentence
        changes         {dotted key: value}; by default none
        seeds, folds    its own
        weights_of      an earlier variant; each run starts from its weights of the same seed and fold
        against         another variant to compare with
        claim           'lower' or 'higher': the claim that its Dice is, than that of `against` or else of the first
        reference       a model among the scores of another program to compare with

A cell is one variant on one seed and fold, an ordinary run in `WORKDIR/<variant>/fold<F>-seed<S>`, or `seed<S>` where
there are no folds.
"""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from m2snet_jax.build import check_config
from m2snet_jax.config import (
    FREE_KEYS,
    changed_keys,
    check_key,
    expand_paths,
    flatten,
    load_config,
    load_file,
    read_record,
    to_json,
)
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.sheets import scored_step


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant of a study; the module's docstring describes the entries."""

    name: str
    about: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    folds: tuple[int | None, ...] = (None,)
    weights_of: str | None = None
    against: str | None = None
    claim: str | None = None
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """The entries of a study file; see the module's docstring."""

    name: str
    about: str
    config: str
    changes: dict[str, Any]
    variants: tuple[Variant, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant on one seed and fold.

    Attributes:
        fold: None for a dataset without folds.
        config: resolved.
        folder: of the run; that of an earlier cell where both have the same config.
        source: the cell whose weights it starts from.
        name: variant, seed and fold, as shown to users.
    """

    variant: str
    seed: int
    fold: int | None
    config: Any
    folder: Path
    source: 'Cell | None'
    name: str

    @property
    def is_finished(self) -> bool:
        """Whether the run is trained and scored."""
        return scored_step(self.folder) is not None


def load_study(name: str) -> Study:
    """Loads a study file by its path, or by its bare name in `configs/studies`.

    Raises:
        InputError: no such file, or something in it that cannot be used.
    """
    get_study, path, variant = load_file(name, 'get_study', 'studies')
    if variant:
        raise InputError(f'--config={name}: a study has no variant after a colon; omit :{variant}')
    try:
        given = dict(get_study())
        common = {key: given.pop(key) for key in ('seeds', 'folds') if key in given}
        variants = tuple(_variant({**common, **one}, path) for one in given.pop('variants'))
        study = Study(path.stem, given.pop('about'), given.pop('config'), _plain(given.pop('changes', {})), variants)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f'{path}: not a study ({type(error).__name__}: {error}); see m2snet_jax/study/definition.py'
        ) from None
    if given:
        raise InputError(f'{path}: unknown entry {next(iter(given))!r}; see m2snet_jax/study/definition.py')
    _check_names(study, path)
    return study


def base_config(study: Study) -> Any:
    """Returns the config that a study varies, with the changes for all variants."""
    return _changed(load_config(study.config), study.changes, f'study {study.name}')


def cells_of(study: Study, config: Any, workdir: str | Path) -> list[Cell]:
    """Returns the cells of a study, in the order in which they are run.

    Args:
        config: what `base_config` returned, with the changes of the command line.
        workdir: folder of the study.

    Raises:
        InputError: an unknown key or a value that does not fit; the message names the variant.
    """
    cells, by_content = {}, {}
    for variant in study.variants:
        for seed in variant.seeds:
            for fold in variant.folds:
                place = f'seed{seed}' if fold is None else f'fold{fold}-seed{seed}'
                source = None if variant.weights_of is None else cells[variant.weights_of, seed, fold]
                own: dict[str, Any] = {'seed': seed} | ({} if fold is None else {'data.fold': fold})
                if source is not None:
                    own['model.weights'] = str(source.folder.absolute())
                changed = _changed(config, {**variant.changes, **own}, f'variant {variant.name!r}')
                shaping = {k: v for k, v in flatten(to_json(changed)).items() if not k.startswith(FREE_KEYS)}
                content = json.dumps(shaping)
                name = f'{variant.name}, seed {seed}' + ('' if fold is None else f', fold {fold}')
                folder = by_content.setdefault(content, Path(workdir) / variant.name / place)
                cells[variant.name, seed, fold] = Cell(variant.name, seed, fold, changed, folder, source, name)
    return list(cells.values())


def check_folder(cell: Cell) -> None:
    """Raises InputError if the folder of a cell holds a run of another config.

    The paths of `data.exclude` and of another cell's weights may differ: the manifest's hash and the cell say enough.
    """
    if not (cell.folder / 'config.json').exists():
        return
    recorded = flatten(to_json(load_config('default'))) | flatten(read_record(cell.folder)['config'])
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
        raise InputError(f'{path}: has no variants')
    for variant in study.variants:
        where = f'{path}: variant {variant.name!r}'
        if not re.fullmatch(r'[A-Za-z0-9_-]+', str(variant.name)):
            raise InputError(f'{where}: a name may contain only letters, digits, _ and -')
        if variant.name in seen:
            raise InputError(f'{where} is listed twice; rename one of them')
        if not variant.seeds or not variant.folds:
            raise InputError(f'{where}: has no seeds or no folds')
        if set(variant.changes) & {'seed', 'data.fold'}:
            raise InputError(f'{where}: changes seed or data.fold; list them under seeds and folds')
        if variant.weights_of is not None:
            source = seen.get(variant.weights_of)
            if source is None:
                raise InputError(f'{where}: weights_of names {variant.weights_of!r}, which is not an earlier variant')
            if not set(variant.seeds) <= set(source.seeds) or not set(variant.folds) <= set(source.folds):
                raise InputError(f'{where}: has seeds or folds on which {source.name} is not trained')
        seen[variant.name] = variant
    for variant in study.variants:
        if variant.claim not in (None, 'lower', 'higher'):
            raise InputError(f"{path}: variant {variant.name!r}: claim is {variant.claim!r}, not 'lower' or 'higher'")
        if variant.claim and variant.against in (None, variant.name) and variant is study.variants[0]:
            raise InputError(f'{path}: variant {variant.name!r}: a claim of the first variant needs another in against')
        if variant.against not in (None, *seen):
            raise InputError(f'{path}: variant {variant.name!r}: against names {variant.against!r}, no such variant')


def _changed(config, changes, where):
    """Returns a checked copy of a config with changes."""
    changed = copy.deepcopy(config)
    for key, value in changes.items():
        check_key(key, config, where)
        try:
            with changed.unlocked():
                changed.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise InputError(f'{where}: {key}={value!r} does not fit: {" ".join(str(error).split())}') from None
    try:
        expand_paths(changed)
        check_config(changed)
    except InputError as error:
        raise InputError(f'{where}: {error}') from None
    return changed


def _plain(changes):
    """Returns changes with paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}

"""The files that a prediction leaves in its folder: maps, masks, overlays, and the results of a series."""

import csv
import io
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from m2snet_jax.errors import InputError, reading
from m2snet_jax.images import nifti
from m2snet_jax.images.drawing import Picture, overlay
from m2snet_jax.images.formats import encode_png, locate
from m2snet_jax.prediction.doubt import entropy_levels, mean_entropy
from m2snet_jax.prediction.folders import claim_folder, map_paths
from m2snet_jax.prediction.predictor import Predictor, is_lesion, released_map, resized_map, sixteen_bit_map
from m2snet_jax.prediction.series import Maps, Series, encode_results, result_files
from m2snet_jax.storage import append, write


class Writer:
    """Writes the files of each image into one folder, every file whole or not at all.

    Args:
        folder: marked as this model's; refused when it holds maps of another.
        raw: None for the released 8 bits, 'npy' for float32 [H, W] or [H, W, C], 'png16' for 16-bit PNG.
        outline: also draw `overlays/`.
        threshold: also write `masks/`, cut at this probability; None: no masks, and outlines are cut at 0.5.
        uncertainty: also write `uncertainty/`, the entropy of each map, and `uncertainty.csv`, its mean around the
            lesion and the agreement of the averaged maps. For a NIfTI volume, NAME_uncertainty.nii.gz.
        variant: as `Predictor.variant`, recorded with the model.

    Attributes:
        agreements: with `uncertainty` a dict, which gets the agreement of each image before its `write`; else None.
    """

    def __init__(
        self,
        folder: str | Path,
        predictor: Predictor,
        raw: str | None = None,
        outline: bool = False,
        threshold: float | None = None,
        uncertainty: bool = False,
        variant: dict[str, Any] | None = None,
    ):
        self.folder, self._raw, self._outline, self._threshold = Path(folder), raw, outline, threshold
        self._predictor, self._classes = predictor, predictor.classes
        self.agreements: dict[str, float] | None = {} if uncertainty else None
        self._entropies: dict[str, Maps] = {}  # of the slices of the volume that is being written
        self._rows: dict[str, tuple[str, ...]] | None = None  # of uncertainty.csv by name, once it is read
        about = {'model_hash': predictor.model_hash, 'size': predictor.size, 'raw': raw, 'threshold': threshold}
        white = {f'white_{kind}': getattr(predictor.reading, kind) for kind in ('integers', 'floats')}
        shown = {'window': predictor.window, **white}
        about |= (variant or {}) | ({'uncertainty': True} if uncertainty else {})
        about |= {'classes': self._classes} if self._classes > 1 else {}
        claim_folder(folder, about | {name: value for name, value in shown.items() if value is not None})

    def paths(self, name: str, series: Series) -> dict[str, list[Path]]:
        """Returns the paths of 'map', 'mask', 'overlay', 'doubt' of one image; a slice of NIfTI has only an overlay."""
        overlays = [self.folder / 'overlays' / f'{name}.png'] * self._outline
        if series.reader is nifti:
            return {'map': [], 'mask': [], 'overlay': overlays, 'doubt': []}
        ending = '.npy' if self._raw == 'npy' else '.png'
        maps = [self.folder / f'{name}.npy'] if ending == '.npy' else map_paths(self.folder, name, self._classes)
        masks = map_paths(self.folder / 'masks', name, self._classes) if self._threshold is not None else []
        doubts = [] if self.agreements is None else map_paths(self.folder / 'uncertainty', name, self._classes)
        return {'map': maps, 'mask': masks, 'overlay': overlays, 'doubt': doubts}

    def is_done(self, series: Series) -> bool:
        """Whether all files of a series exist; they are written whole, so they need not be written again."""
        return all(path.exists() for path, _ in self._files(series))

    def check_paths(self, every: Iterable[Series]) -> None:
        """Raises InputError if two images have a file in common, e.g. the mask of `a` and the map of `masks/a`."""
        source_of = {}
        for path, source in (file for series in every for file in self._files(series)):
            if path in source_of:
                raise InputError(f'{path}: would be written for {source_of[path]} and for {source}; predict them apart')
            source_of[path] = source

    def _files(self, series):
        """Returns (path, its image) of all files of a series; the image of its results is the first."""
        own = [(path, image) for name, image in series.images for path in chain(*self.paths(name, series).values())]
        results = result_files(series, self.folder, self._raw) + self._volume(series)
        return own + [(path, locate(series.images[0][1])[0]) for path in results]

    def write(
        self, name: str, series: Series, pixels: Picture, probability: Float32[np.ndarray, 'size size classes']
    ) -> Maps:
        """Writes the files of one image and returns its maps at its own size: 8-bit levels or, with `raw`, float32."""
        size, paths = pixels.shape[:2], self.paths(name, series)
        maps = (released_map if self._raw is None else resized_map)(probability, *size)
        if self.agreements is not None:
            self._write_doubt(name, series, resized_map(probability, *size), is_lesion(maps, self._cut))
        if self._raw == 'npy':
            data = io.BytesIO()
            np.save(data, maps[..., 0] if self._classes == 1 else maps)
            for path in paths['map']:
                write(path, data.getvalue())
        else:
            levels = maps if self._raw is None else sixteen_bit_map(probability, *size)
            for path, channel in zip(paths['map'], np.moveaxis(levels, -1, 0), strict=False):
                write(path, cv2.imencode('.png', channel)[1].tobytes())
        masks = np.where(is_lesion(maps, self._cut), 255, 0).astype(np.uint8)
        for path, mask in zip(paths['mask'], np.moveaxis(masks, -1, 0), strict=False):
            write(path, encode_png(mask))
        for path in paths['overlay']:
            write(path, encode_png(overlay(pixels, None, masks.max(-1))))
        return maps

    def write_results(self, series: Series, maps: dict[str, Maps]) -> None:
        """Writes the files of results of a series, from what `write` returned for each image."""
        paths = result_files(series, self.folder, self._raw)
        if paths and maps:
            lesions = {name: is_lesion(one, self._cut) for name, one in maps.items()}
            for path, data in zip(paths, encode_results(series, maps, lesions, self._predictor), strict=True):
                write(path, data)
        entropies = [self._entropies.pop(name) for name, _ in series.images if name in self._entropies]
        for path in self._volume(series) if len(entropies) == len(series.images) else ():
            levels = np.stack(entropies)
            data = nifti.encode_nifti(locate(series.images[0][1])[0], levels[..., 0] if self._classes == 1 else levels)
            write(path, data)

    def _write_doubt(self, name, series, probability, lesion):
        """Writes the entropy of one image and its row of the table; a slice waits for its volume."""
        assert self.agreements is not None
        levels = entropy_levels(probability)
        if series.reader is nifti:
            self._entropies[name] = levels
        self._write_row(name, f'{mean_entropy(probability, lesion):.6f}', f'{self.agreements.pop(name):.6f}')
        for doubt_path, channel in zip(self.paths(name, series)['doubt'], np.moveaxis(levels, -1, 0), strict=False):
            write(doubt_path, encode_png(np.ascontiguousarray(channel)))

    def _write_row(self, name, *values):
        """Writes the row of an image, in place of that of an earlier call, e.g. of a volume that was interrupted."""
        path, earlier = self.folder / 'uncertainty.csv', self._rows
        rows = self._rows = _rows_of(path) if earlier is None else earlier
        is_whole = earlier is None or name in rows
        rows[name] = (name, *values)
        if is_whole:
            write(path, _table([('name', 'mean_entropy', 'pairwise_dice'), *rows.values()]))
        else:
            append(path, _table([rows[name]]))

    def _volume(self, series):
        """Returns the path of the entropy of a NIfTI volume, if it is written."""
        wanted = self.agreements is not None and series.reader is nifti
        return [self.folder / f'{series.name}_uncertainty.nii.gz'] if wanted else []

    @property
    def _cut(self) -> float:
        """The probability from which a pixel counts as lesion."""
        return 0.5 if self._threshold is None else self._threshold


def _rows_of(path):
    """Returns {name: row} of the table of an earlier call, without a row that was cut; of none without a table."""
    if not path.exists():
        return {}
    with reading(path, 'a table'):
        rows = list(csv.reader(io.StringIO(path.read_text(encoding='utf-8'))))[1:]
    return {row[0]: tuple(row) for row in rows if len(row) == 3}


def _table(rows):
    """Returns rows as text of comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()

"""The table of findings: a row for each lesion, as CSV or JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images.spacing import UNKNOWN, Spacing
from m2snet_jax.measurement.lesions import Lesion, label_lesions, measure_labels, measure_volume
from m2snet_jax.storage import json_value, write

ENDINGS = ('.csv', '.json')
DIGITS = 4  # after the decimal point
CONVENTION = (
    'lesions: components of 8 neighbours, in a volume of 26; area: pixels times the area of a pixel; diameters: '
    'between midpoints of pixel edges, the largest and the longest chord perpendicular to it; positions: (0, 0) is '
    'the centre of the upper left pixel; of a volume the section with the largest diameter is measured'
)


@dataclasses.dataclass(frozen=True)
class Findings:
    """The lesions of one class in a picture or a volume.

    Attributes:
        image: its name.
        class_index: 1 for the first class.
        labels: the number of the lesion of each pixel, 0 outside.
        lesions: in the order of their numbers.
        more: further columns of the rows, e.g. the number of a frame.
        slices: names of the images that are the slices of a volume.
    """

    image: str
    class_index: int
    labels: Int[np.ndarray, '*slices height width']
    lesions: list[Lesion]
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    slices: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each lesion."""
        head = {'image': self.image, **self.more, 'class': self.class_index}
        return [head | self._row(number, lesion) for number, lesion in enumerate(self.lesions, 1)]

    def _row(self, number, lesion):
        row = {'number': number} | dataclasses.asdict(lesion)
        return row | ({'slice_image': self.slices[lesion.slice or 0]} if self.slices else {})


def find_lesions(
    image: str,
    masks: Bool[np.ndarray, '*slices height width classes'],
    probabilities: Float[np.ndarray, '*slices height width classes'] | None = None,
    spacing: Spacing = UNKNOWN,
    smallest: int = 0,
    slices: Sequence[str] = (),
    **more: Any,
) -> list[Findings]:
    """Returns the findings of each class of a picture, or of a volume, whose masks have slices.

    Args:
        image: its name.
        masks: of each class.
        probabilities: in [0, 1].
        spacing: of the file.
        smallest: lesions of fewer pixels, in a volume voxels, are left out.
        slices: names of the images that are the slices of a volume.
        more: further columns of the rows, e.g. the number of a frame.
    """
    found = []
    for index in range(masks.shape[-1]):
        labels = label_lesions(masks[..., index], smallest)
        probability = None if probabilities is None else probabilities[..., index]
        if labels.ndim == 2:
            lesions = measure_labels(labels, probability, spacing.at)
        else:
            voxel = None if spacing.size is None else (spacing.between_slices, *spacing.size)
            lesions = measure_volume(labels, probability, voxel)
        found.append(Findings(image, index + 1, labels, lesions, more, slices))
    return found


class FrameFindings:
    """The findings of the frames of clips, one frame at a time: the rows are kept, the frames are not.

    Args:
        smallest: lesions of fewer pixels are left out.

    Attributes:
        rows: one for each lesion, with `frame`, which counts from 0, and `time_s`, seconds since the start of the clip.
        frames, frames_with_lesions: numbers of frames.
    """

    def __init__(self, smallest: int = 0):
        self._smallest = smallest
        self.rows: list[dict[str, Any]] = []
        self.frames = self.frames_with_lesions = 0

    def add(
        self,
        name: str,
        number: int,
        seconds: float,
        masks: Bool[np.ndarray, 'height width classes'],
        levels: UInt8[np.ndarray, 'height width classes'],
    ) -> None:
        """Adds the lesions of one frame; `levels` are probabilities times 255."""
        probabilities = levels / np.float32(255)
        found = find_lesions(name, masks, probabilities, smallest=self._smallest, frame=number, time_s=seconds)
        self.rows += [row for one in found for row in one.rows()]
        self.frames += 1
        self.frames_with_lesions += any(one.lesions for one in found)


def check_ending(path: str | Path, flag: str = 'table') -> None:
    """Raises InputError unless the ending is that of a table."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise InputError(f'--{flag}={path}: name a file that ends in {" or ".join(ENDINGS)}')


def write_table(path: str | Path, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Writes rows as CSV, or as JSON if the name ends in .json; see `table_text`.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    check_ending(path)
    write(path, table_text(rows, about, as_json=Path(path).suffix.lower() == '.json'))


def table_text(rows: Sequence[dict[str, Any]], about: dict[str, Any], as_json: bool = False) -> str:
    """Returns rows as text.

    The head has `about` and the convention: in CSV as lines that begin with #, in JSON under `about`, beside `lesions`.
    A value that a lesion lacks is empty in CSV and null in JSON. Numbers are rounded to four digits after the point.
    """
    about = about | {'convention': CONVENTION}
    if as_json:
        columns = _columns(rows)
        rows = [{name: _rounded(row.get(name)) for name in columns} for row in rows]
        return json.dumps(json_value({'about': about, 'lesions': rows}), indent=1) + '\n'
    empty = ('image', 'class', 'number', *(field.name for field in dataclasses.fields(Lesion)))
    return rows_text(rows, about, empty)


def rows_text(rows: Sequence[dict[str, Any]], about: dict[str, Any], empty: Sequence[str] = ()) -> str:
    """Returns rows as CSV below lines of `about` that begin with #; `empty` names the columns where no row is."""
    columns = _columns(rows) or list(empty)
    text = io.StringIO()
    for name, value in about.items():
        lines = value if isinstance(value, list) else [value]
        text.writelines(f'# {name}: {" ".join(str(line).split())}\n' for line in lines)
    table = csv.DictWriter(text, columns, lineterminator='\n')
    table.writeheader()
    table.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _columns(rows):
    """Returns the names in all rows, in the order of the rows that have most of them."""
    return list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))


def _rounded(value):
    return round(value, DIGITS) if isinstance(value, float) else value


def about_table(
    found: Sequence[Findings],
    threshold: float,
    smallest: int,
    notes: Sequence[str],
    frames: FrameFindings | None = None,
) -> dict[str, Any]:
    """Returns the head of a table: what was counted, and how."""
    about = {
        'images': len({one.image for one in found}),
        'images_with_lesions': len({one.image for one in found if one.lesions}),
    }
    if frames is not None:
        about |= {'frames': frames.frames, 'frames_with_lesions': frames.frames_with_lesions}
    about |= {
        'lesions': sum(len(one.lesions) for one in found) + (len(frames.rows) if frames else 0),
        'threshold': threshold,
        'smallest': f'{smallest} pixels or voxels; smaller lesions are left out'
        if smallest
        else '0: no lesion is left out',
    }
    return about | ({'notes': list(notes)} if notes else {})

"""The Reading of a set of files: what only all of them together can tell, decided once and recorded with the run."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from m2snet_jax.images.depth import white_of


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the files of a set are read. The default decides nothing: each file is read by its own content.

    Attributes:
        integers, floats: the value that is white in files of more than 8 bits that hold integers or floats.
        level: the one number beside 0 that all masks or maps hold, read as 255.
        two_levels: whether each mask has at most two levels, one of them 0; the other is read as 255.
        one_colour: whether masks or maps are black and one colour, read as 0 and 255.
        alpha: whether the alpha channel is the mask, since colour is the same all over.
        clinical_only: whether `level`, `one_colour` and `alpha` are of the DICOM and NIfTI files of the set alone.
        colors: of background and classes, in order, as `data.colors`.
        found: the grey levels of all masks where they are few, for messages.
        notes: a line for each decision that a reader of the results should know.
        problem: a line on why no decision is possible, '' without.
    """

    integers: float | None = None
    floats: float | None = None
    level: float | None = None
    two_levels: bool = False
    one_colour: bool = False
    alpha: bool = False
    clinical_only: bool = False
    colors: tuple[str, ...] = ()
    found: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ''

    def white(self, highest: float, floats: bool) -> float:
        """Returns the value that is white in a file whose highest value is `highest`."""
        decided = self.floats if floats else self.integers
        return white_of(highest, floats) if decided is None else decided

    def of_images(self) -> 'Reading':
        """Returns the decisions on images alone, without notes, since the run that recorded them has said them."""
        return Reading(self.integers, self.floats)

    def to_json(self) -> dict[str, Any]:
        """Returns what differs from the default, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != getattr(Reading, name)}


def from_json(values: dict[str, Any] | None) -> Reading:
    """Returns the Reading of what `to_json` returned, the default of None; names that it does not have are ignored."""
    names = {field.name for field in dataclasses.fields(Reading)}
    known = {name: value for name, value in (values or {}).items() if name in names}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return Reading(**values)


def joined(readings: Iterable[Reading]) -> Reading:
    """Returns the decisions of several readings, on images and on masks, in one."""
    values, notes = {}, ()
    for one in readings:
        values |= one.to_json()
        notes += one.notes
    return Reading(**{**values, 'notes': notes})


UNDECIDED = Reading()

"""What the page of the demo shows of one image or one clip: the same as `predict` writes."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images.clips import SEEN, Clip
from m2snet_jax.images.drawing import overlay
from m2snet_jax.images.formats import read_image
from m2snet_jax.measurement.findings import Findings, FrameFindings, about_table, find_lesions, write_table
from m2snet_jax.prediction.predictor import Predictor, is_lesion, released_map
from m2snet_jax.prediction.video import predict_clip

PLAYED = (('VP80', '.webm'), ('VP90', '.webm'), *SEEN)  # codecs and endings, those that browsers play first


def predicted(predictor: Predictor, path: str | Path) -> dict[str, Any]:
    """Returns what is predicted of an image file.

    Its `name`, its `pixels`, the `levels` of every class that `predict` writes, and a sentence on the `agreement` of
    the maps that are averaged, '' of one.
    """
    pixels = read_image(path)
    prediction = predictor.predictions([pixels])[0]
    levels = released_map(prediction.probability, *pixels.shape[:2])
    agreement = f' The averaged maps agree with a mean Dice of {prediction.agreement:.3f}.'
    return {
        'name': Path(path).stem,
        'pixels': pixels,
        'levels': levels,
        'agreement': agreement if predictor.passes > 1 else '',
    }


def drawn(
    case: dict[str, Any], threshold: float, number: int = 1
) -> tuple[UInt8[np.ndarray, 'height width 3'], UInt8[np.ndarray, 'height width'], UInt8[np.ndarray, 'height width']]:
    """Returns the image with the outline, the map, and the mask of 0 and 255, of one class.

    Args:
        case: as `predicted` returns it.
        threshold: lowest probability inside.
        number: of the class, from 1.
    """
    levels = case['levels'][..., number - 1]
    mask = np.where(is_lesion(levels, threshold), 255, 0).astype(np.uint8)
    return overlay(case['pixels'], None, mask), levels, mask


def findings(case: dict[str, Any], threshold: float) -> list[Findings]:
    """Returns the findings of each class of a case, as `predict --table` writes them."""
    levels = case['levels']
    return find_lesions(case['name'], is_lesion(levels, threshold), levels / np.float32(255))


@dataclasses.dataclass(frozen=True)
class PredictedClip:
    """What is predicted of a clip.

    Attributes:
        overlay: the clip with outlines.
        files: the table of findings, and clips of the maps.
        rows: of the table.
        frames, frames_with_lesions: numbers of frames.
        fault: why the clip is not complete, '' if it is.
    """

    overlay: Path
    files: list[Path]
    rows: list[dict[str, Any]]
    frames: int
    frames_with_lesions: int
    fault: str = ''


def predict_clip_file(
    predictor: Predictor,
    path: str | Path,
    folder: str | Path,
    threshold: float = 0.5,
    smooth: int = 1,
    report: Callable[[int, int], None] = lambda done, announced: None,
) -> PredictedClip:
    """Predicts a clip into a new folder.

    Args:
        path: of the clip.
        folder: where the new folder is made.
        threshold: lowest probability inside.
        smooth: number of frames over which probabilities are averaged.
        report: called after each frame with the number done, and that announced by the file, 0 or less without.

    Raises:
        InputError: not a clip, or no frames.
    """
    name, output, fault = Path(path).stem, Path(tempfile.mkdtemp(dir=folder)), ''
    found, announced = FrameFindings(), Clip(path).announced

    def on_frame(number, seconds, masks, levels):
        found.add(name, number, seconds, masks, levels)
        report(number + 1, announced)

    try:
        predict_clip(
            predictor,
            name,
            Path(path),
            output,
            frames='clip',
            outline=True,
            threshold=threshold,
            smooth=smooth,
            on_frame=on_frame,
            seen=PLAYED,
        )
    except InputError as error:
        if not found.frames:
            raise
        fault = str(error).replace(str(path), Path(path).name)
    table = output / f'{name}_findings.csv'
    write_table(table, found.rows, about_table([], threshold, 0, [], found))
    (shown,) = (output / 'overlays').iterdir()
    return PredictedClip(
        shown, [table, *sorted(output.glob('*_maps*'))], found.rows, found.frames, found.frames_with_lesions, fault
    )

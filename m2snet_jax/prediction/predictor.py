"""From an image to a map: loads any trained model, runs it, and turns probabilities into maps."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from jaxtyping import Bool, Float, Float32, Shaped, UInt8, UInt16
from PIL import Image

from m2snet_jax.data import augment
from m2snet_jax.devices.mesh import Mesh, replicate
from m2snet_jax.errors import InputError
from m2snet_jax.images.decisions import image_reading
from m2snet_jax.images.formats import read_image
from m2snet_jax.images.reading import UNDECIDED, from_json
from m2snet_jax.prediction.ensemble import Ensemble
from m2snet_jax.prediction.members import FLIPS, Member, Prediction, find_models, load_member, mean_map, pairwise_dice
from m2snet_jax.weights import recorded_reading

LARGEST_BATCH = 8  # a longer list runs in pieces of this many images
Probabilities = Float[np.ndarray, 'size size classes']  # in [0, 1], at the network's size


def load_model(path: str | Path | Sequence[str | Path], *, config: Any = None, calibrated: bool = False) -> 'Predictor':
    """Loads a trained model, or several as one, for prediction.

    Args:
        path: the folder of a run or of a converted model (its newest checkpoint is taken), the folder `checkpoints` in
            it or one step's folder in that, or a PyTorch or safetensors file. A list of these, or a pattern such as
            'runs/fold*-seed*', gives one Predictor of all.
        config: model and size of a bare file, as a ConfigDict or a name for `load_config`; by default M2SNet with a
            Res2Net-50 at 352 pixels. A run has recorded its own.
        calibrated: divide the logits of each model by the temperature that `calibrate` stored beside it.

    Raises:
        InputError: nothing there, weights that do not fit, no stored temperature, or models of other classes.
    """
    loaded = []
    for one in find_models(path):
        predictor = Predictor(*load_member(one, config, calibrated))
        if one.is_dir():
            predictor.reading = from_json(recorded_reading(one)).of_images()
        loaded.append(predictor)
    return loaded[0] if len(loaded) == 1 else Predictor.joined(loaded)


class Predictor:
    """Probability maps of images, by one model or by the mean of several: `predictor(image)`.

    It runs on the first device that jax finds, and may be called from several threads at once. The batch norms of its
    models, MSNets or M2SNets, are folded into the convolutions. Models run one after the other over a batch.

    Attributes:
        members: the models, in the order of their hashes.
        size: side in pixels at which the network runs; of models of several sizes the largest.
        classes: maps that it predicts.
        config: the ConfigDict that named the (first) model, None without.
        window: as `data.window`, for files of more than 8 bits; the config's, and may be set.
        reading: how the images that the models were trained on were read, as their runs recorded it; may be set.
        flips: whether maps are means over the image and its three flips, each flipped back; may be set.
    """

    def __init__(self, model: Any, size: int, config: Any = None, temperature: float = 1.0):
        self._set_members([Member(model, size, config, temperature)])
        self.window = None if config is None else config.data.get('window')  # runs from before the key have none
        self.reading = UNDECIDED

    @classmethod
    def joined(cls, predictors: Sequence['Predictor']) -> 'Predictor':
        """Returns one Predictor of the models of several, the same for any order of them.

        Raises:
            InputError: their classes, windows or readings differ.
        """
        first = predictors[0]
        for name in ('classes', 'window', 'reading'):
            found = list(dict.fromkeys(str(getattr(one, name)) for one in predictors))
            if len(found) > 1:
                raise InputError(f'the models have different {name}: {" and ".join(found)}; give models that agree')
        new = cls.__new__(cls)
        by_hash = sorted(predictors, key=lambda one: (one.model_hash, one.size, one.members[0].temperature))
        new._set_members([member for one in by_hash for member in one.members])
        new.window, new.reading = first.window, first.reading
        return new

    def _set_members(self, members):
        self.members, self.flips, self._ensemble = members, False, Ensemble(members)
        self.size, self.config = max(self.sizes), members[0].config
        self.classes = members[0].model.output1.kernel.shape[-1]

    @property
    def passes(self) -> int:
        """The number of maps that are averaged."""
        return len(self.members) * (len(FLIPS) if self.flips else 1)

    @property
    def sizes(self) -> list[int]:
        """The sizes of the models, each once."""
        return self._ensemble.sizes

    @property
    def variant(self) -> dict[str, Any]:
        """How maps differ from those of the model alone, as JSON values by name; nothing for one model without flips.

        Folders of maps and score sheets record it.
        """
        found: dict[str, Any] = {'models': len(self.members)} if len(self.members) > 1 else {}
        found |= {'sizes': self.sizes} if len(self.sizes) > 1 else {}
        found |= {'tta': 'flips'} if self.flips else {}
        temperatures = [member.temperature for member in self.members]
        return found | ({'temperatures': temperatures} if any(one != 1 for one in temperatures) else {})

    @property
    def model(self) -> Any:
        """The (first) model itself, in evaluation mode; a new object each time, which shares the arrays."""
        model = nnx.merge(*nnx.split(self.members[0].model))
        model.eval()
        return model

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights, the same for every kind of file; of several models that of their hashes, sorted."""
        return self._ensemble.model_hash

    def __call__(self, image: Any) -> Any:
        """Returns float32 `[H, W]`, or `[H, W, classes]` for several classes, in [0, 1], at the image's own size.

        The map is resized in float; only the command line writes the released program's bytes.

        Args:
            image: uint8 `[H, W, 3]` or `[H, W]`, or the path of an image file; or a list of these, for a list of maps.

        Raises:
            InputError: an array of another kind, or a file that cannot be read.
        """
        if not isinstance(image, (list, tuple)):
            return self([image])[0]
        images = [pixels if isinstance(pixels, np.ndarray) else self._read(pixels) for pixels in image]
        maps = [
            resized_map(probability, *pixels.shape[:2])
            for probability, pixels in zip(self.probabilities(images), images, strict=True)
        ]
        return [one[..., 0] if self.classes == 1 else one for one in maps]

    def _read(self, path):
        """Returns the pixels of a file; logs how one of more than 8 bits is read where no run decides it."""
        reading = image_reading([path], self.window, self.reading)
        for note in reading.notes:
            logging.warning('%s: %s', path, note)
        return read_image(path, self.window, reading)

    def probabilities(self, images: Sequence[UInt8[np.ndarray, 'height width *rgb']]) -> list[Probabilities]:
        """Returns the float32 probabilities of each image; images may have any sizes, in grey or RGB.

        They have the network's size. Those of models of several sizes are means at the image's own size.

        Images run in batches of 1, 2, 4 or 8, padded where needed, so that at most four programs are compiled for each
        structure and size of a model, each on first use.

        Raises:
            InputError: an array of another kind.
        """
        return [one.probability for one in self.predictions(images)]

    def predictions(self, images: Sequence[UInt8[np.ndarray, 'height width *rgb']]) -> list[Prediction]:
        """Returns the Prediction of each image: its probabilities, and how far the averaged maps agree."""
        images, results = [_colour(pixels) for pixels in images], []
        for start in range(0, len(images), LARGEST_BATCH):
            piece = images[start : start + LARGEST_BATCH]
            bucket, batches = 1 << (len(piece) - 1).bit_length(), {}
            for size in self.sizes:
                examples = [augment.test_example(pixels, size) for pixels in piece]
                batches[size] = np.stack(examples + [examples[-1]] * (bucket - len(examples)))
            results += self._combined(self._ensemble.passes(batches, self.flips, self._ensemble.run), piece)
        return results

    def over(self, mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
        """Returns the network of a single model as a function of batches that are split over a mesh.

        Images `[B, S, S, 3]`, normalised for the test path, give probabilities `[B, S, S, C]`.
        """
        step, weights = self._ensemble.steps[0]
        return functools.partial(step, replicate(weights, mesh))

    def predictions_over(self, mesh: Mesh) -> Callable[..., list[Prediction]]:
        """Returns a function of this process's share of a batch, which is split over a mesh: its Predictions.

        Its arguments are the images, uint8 [H, W, 3] each, and the same normalised at `size`, filled up to a whole
        share.
        """
        run = self._ensemble.over(mesh)

        def predict(images, at_size):
            batches = {self.size: at_size}
            for size in self.sizes[:-1]:
                batches[size] = np.zeros((len(at_size), size, size, 3), np.float32)
                for row, pixels in zip(batches[size], images, strict=False):
                    row[:] = augment.test_example(pixels, size)
            return self._combined(self._ensemble.passes(batches, self.flips, run), images)

        return predict

    def _combined(self, passes, images):
        """Returns the Prediction of each image, from the probabilities of its batch."""
        predictions = []
        for index, pixels in enumerate(images):
            maps = [np.asarray(one[index]) for one in passes]
            if len(self.sizes) > 1:
                maps = [resized_map(np.ascontiguousarray(one), *pixels.shape[:2]) for one in maps]
            predictions.append(Prediction(mean_map(maps), pairwise_dice(maps)))
        return predictions


def _colour(pixels):
    """Returns an image as RGB, or raises InputError."""
    if (
        pixels.dtype != np.uint8
        or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3))
        or 0 in pixels.shape
    ):
        shape = ', '.join(map(str, pixels.shape))
        raise InputError(f'an image is {pixels.dtype} [{shape}]: give uint8 [H, W, 3] or [H, W]')
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels


def resized_map(probability: Probabilities, height: int, width: int) -> Float32[np.ndarray, 'height width classes']:
    """Resizes probabilities in float."""
    return _resize(probability, height, width)


def released_map(probability: Probabilities, height: int, width: int) -> UInt8[np.ndarray, 'height width classes']:
    """Returns probabilities as levels, as the released program writes them.

    ⌊255·p⌋ first, then Pillow's bilinear resize of the bytes. NaN, from a network that has diverged, becomes 0.
    """
    return _resize((np.nan_to_num(probability) * 255).astype(np.uint8), height, width)


def sixteen_bit_map(probability: Probabilities, height: int, width: int) -> UInt16[np.ndarray, 'height width classes']:
    """Returns probabilities resized in float as ⌊65535·p + ½⌋."""
    levels = np.floor(resized_map(probability, height, width) * 65535.0 + 0.5)
    return np.clip(levels, 0, 65535).astype(np.uint16)


def is_lesion(maps: Shaped[np.ndarray, '*shape'], threshold: float) -> Bool[np.ndarray, '*shape']:
    """Returns where maps, uint8 levels or floats, are at the probability `threshold` or above."""
    return maps >= threshold * (255 if maps.dtype == np.uint8 else 1)


def _resize(maps, height, width):
    channels = [Image.fromarray(channel) for channel in np.moveaxis(maps, -1, 0)]
    resized = [channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], -1)

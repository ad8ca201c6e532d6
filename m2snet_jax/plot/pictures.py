"""Pictures for people: a map drawn on its image, and one case as image, mask, map and errors."""

import cv2
import numpy as np

MASK_COLOUR = (0, 255, 0)
MAP_COLOUR = (255, 0, 255)
# Blue and orange are told apart with every kind of colour vision (Okabe and Ito, 2008).
HIT, MISSED, FALSE = (255, 255, 255), (230, 159, 0), (86, 180, 233)
THRESHOLD = 128
PANEL = 320  # longest side in pixels of a panel


def overlay(image, mask, prediction, threshold=THRESHOLD):
    """Draws the outline of the mask in green and of the map, cut at a level, in magenta.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W] levels, cut at half of its maximum; None where there is none.
        prediction: uint8 [H, W] map.
        threshold: the lowest level inside the outline.

    Returns:
        uint8 [H, W, 3].
    """
    drawn = image.copy()
    width = max(1, round(max(image.shape) / 250))
    regions = [] if mask is None else [(mask > mask.max() / 2, MASK_COLOUR)]
    for region, colour in (*regions, (prediction >= threshold, MAP_COLOUR)):
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, colour, width)
    return drawn


def case_panels(image, mask, prediction):
    """One case as four pictures side by side: image, mask, map, and errors on the darkened image.

    White is lesion found, orange lesion missed, blue false alarm.

    Args:
        image: uint8 [H, W, 3], None where there is none.
        mask: uint8 [H, W] levels, lesion above half of its maximum.
        prediction: uint8 [h, w] map, brought to the mask's size where it has another.

    Returns:
        uint8 [h, 4 w, 3] with h and w at most `PANEL`.
    """
    height, width = mask.shape
    scale = min(1.0, PANEL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if image is None:
        image = np.zeros((height, width, 3), np.uint8)
    lesion = np.where(mask > mask.max() / 2, 255, 0).astype(np.uint8)
    image, lesion, levels = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (image, lesion, prediction))
    truth, found = lesion >= 128, levels >= THRESHOLD
    errors = image.astype(np.float32) * 0.45
    for region, colour in ((truth & found, HIT), (truth & ~found, MISSED), (~truth & found, FALSE)):
        errors[region] = 0.4 * errors[region] + 0.6 * np.array(colour, np.float32)
    grey = [np.stack([one] * 3, -1) for one in (lesion, levels)]
    return np.concatenate([image, *grey, errors.astype(np.uint8)], axis=1)


def grid(pictures, columns=4, side=PANEL):
    """Puts pictures of any sizes into one, row by row, each shrunk or enlarged to fit a square cell.

    Args:
        pictures: arrays uint8 [h, w, 3] or [h, w].
        columns: cells in a row.
        side: of a cell, in pixels.

    Returns:
        uint8 [rows · side, columns · side, 3], white where nothing is.
    """
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        scale = side / max(picture.shape[:2])
        height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        top = number // columns * side + (side - height) // 2
        left = number % columns * side + (side - width) // 2
        sheet[top : top + height, left : left + width] = resized if resized.ndim == 3 else resized[..., None]
    return sheet

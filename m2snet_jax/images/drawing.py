"""Pictures for people: a map drawn on its image, and one case as image, mask, map and errors."""

import cv2
import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, 'height width 3']
Levels = UInt8[np.ndarray, 'height width']
MASK_COLOUR = (0, 255, 0)
MAP_COLOUR = (255, 0, 255)
# Blue and orange can be distinguished with every kind of colour vision (Okabe and Ito, 2008).
HIT, MISSED, FALSE = (255, 255, 255), (230, 159, 0), (86, 180, 233)
THRESHOLD = 128
PANEL = 320  # longest side in pixels of a panel


def overlay(image: Picture, mask: Levels | None, prediction: Levels, threshold: int = THRESHOLD) -> Picture:
    """Returns the image with the outlines of the mask in green and of the map in magenta.

    The mask is cut at half of its maximum, the map at the level `threshold`, which is inside.
    """
    drawn = image.copy()
    width = max(1, round(max(image.shape) / 250))
    regions = [] if mask is None else [(mask > mask.max() / 2, MASK_COLOUR)]
    for region, colour in (*regions, (prediction >= threshold, MAP_COLOUR)):
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, colour, width)
    return drawn


def case_panels(
    image: Picture | None, mask: Levels, prediction: UInt8[np.ndarray, 'map_height map_width']
) -> UInt8[np.ndarray, 'panel_height four_panel_widths 3']:
    """Returns one case as four panels side by side: image, mask, map, and errors on the darkened image.

    White is lesion found, orange lesion missed, blue false alarm; lesion is the mask above half of its maximum. The
    longest side of a panel is at most `PANEL`. Without an image, its panel says so.
    """
    height, width = mask.shape
    scale = min(1.0, PANEL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    given = image is not None
    if image is None:
        image = np.zeros((height, width, 3), np.uint8)
    lesion = np.where(mask > mask.max() / 2, 255, 0).astype(np.uint8)
    image, lesion, levels = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (image, lesion, prediction))
    if not given:
        cv2.putText(image, 'no image given', (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    truth, found = lesion >= 128, levels >= THRESHOLD
    errors = image.astype(np.float32) * 0.45
    for region, colour in ((truth & found, HIT), (truth & ~found, MISSED), (~truth & found, FALSE)):
        errors[region] = 0.4 * errors[region] + 0.6 * np.array(colour, np.float32)
    grey = [np.stack([one] * 3, -1) for one in (lesion, levels)]
    return np.concatenate([image, *grey, errors.astype(np.uint8)], axis=1)

"""Pictures for people: a map drawn on its image."""

import cv2
import numpy as np

MASK_COLOUR = (0, 255, 0)
MAP_COLOUR = (255, 0, 255)
THRESHOLD = 128


def overlay(image, mask, prediction):
    """Draws the outline of the mask in green and of the map, cut at level 128, in magenta.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W] levels, cut at half of its maximum.
        prediction: uint8 [H, W] map.

    Returns:
        uint8 [H, W, 3].
    """
    drawn = image.copy()
    width = max(1, round(max(image.shape) / 250))
    for region, colour in ((mask > mask.max() / 2, MASK_COLOUR), (prediction >= THRESHOLD, MAP_COLOUR)):
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, colour, width)
    return drawn

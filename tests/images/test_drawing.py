"""Pictures for people."""

import numpy as np

from m2snet_jax.images.drawing import case_panels


def test_the_panel_of_a_missing_image_says_so():
    mask = np.zeros((160, 200), np.uint8)
    missing, black = (case_panels(image, mask, mask) for image in (None, np.zeros((160, 200, 3), np.uint8)))
    assert missing[:, :200].any()
    assert not black[:, :200].any()
    np.testing.assert_array_equal(missing[:, 200:600], black[:, 200:600])

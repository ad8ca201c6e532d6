"""A written model of how a step's speed holds up on more chips; no measurement."""

import math

SHARE = 0.5  # of peak that the arithmetic reaches; a higher share makes communication weigh more
HOP = 1e-6  # seconds from a chip to its neighbour, "How to Scale Your Model" (jax-ml.github.io/scaling-book)
# The usual slices of each number of axes.
SHAPES = {2: ((2, 2), (4, 4), (8, 8), (16, 16)), 3: ((2, 2, 1), (2, 4, 4), (4, 4, 4), (4, 8, 8))}


def scaling(chip, flops, reductions, shape, share=SHARE):
    """Returns the time of one training step on a torus of chips, and the efficiency against one chip alone.

    Assumptions: the same images a chip on every slice, so that arithmetic and the bytes reduced stay the same; nothing
    overlaps; each reduction is a reduce-scatter and an all-gather along every axis of the torus; a ring uses its
    links in both directions, a line in one; input keeps up.

    Args:
        chip: a Chip with `axes`.
        flops: of a step on one chip.
        reductions: bytes of every all-reduce of a step.
        shape: chips along each axis.
        share: of the chip's peak that the arithmetic reaches.

    Returns:
        {'chips', 'arithmetic', 'bytes', 'hops': seconds of each, 'efficiency': share of one chip's speed that is kept}.
    """
    chips = math.prod(shape)
    sides = [side for side in shape if side > 1]
    rings = [side % chip.closed == 0 for side in sides]
    arithmetic = flops / (share * chip.peak)
    speed = sum(chip.link * (2 if ring else 1) for ring in rings)
    transfer = 2 * sum(reductions) * (chips - 1) / chips / speed if sides else 0.0
    distance = sum(side // 2 if ring else side - 1 for side, ring in zip(sides, rings, strict=True))
    hops = 2 * len(reductions) * distance * HOP
    return {
        'chips': chips,
        'arithmetic': arithmetic,
        'bytes': transfer,
        'hops': hops,
        'efficiency': arithmetic / (arithmetic + transfer + hops),
    }

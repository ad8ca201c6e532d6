"""A written model of how a step's speed holds up on more chips; no measurement."""

import math

SHARE = 0.5  # of peak that the arithmetic reaches; a higher share makes communication weigh more
HOP = 1e-6  # seconds from a chip to its neighbour, "How to Scale Your Model" (jax-ml.github.io/scaling-book)
# The usual slices of each number of axes.
SHAPES = {2: ((2, 2), (4, 4), (8, 8), (16, 16)), 3: ((2, 2, 1), (2, 4, 4), (4, 4, 4), (4, 8, 8))}


def scaling(chip, flops, accessed, reductions, shape, share=SHARE):
    """Returns the times of one training step on a torus of chips, and what is kept of one chip's speed.

    Assumptions: the same images a chip on every slice, so that arithmetic and the bytes reduced stay the same; nothing
    overlaps; each reduction is a reduce-scatter and an all-gather along every axis of the torus; a ring uses its
    links in both directions, a line in one; input keeps up.

    How long one chip alone takes is not known. The efficiency is given for two guesses: `low`, as if arithmetic at
    `share` of peak were all, which is too short a step for layers with few channels; and `high`, as if every byte that
    an operation touches came from memory, which is too long a step, since some stay on the chip.

    Args:
        chip: a Chip with `axes`.
        flops, accessed: arithmetic and bytes touched by a step on one chip.
        reductions: bytes of every all-reduce of a step.
        shape: chips along each axis.
        share: see above.

    Returns:
        {'chips', seconds of 'arithmetic' and 'memory' on every chip and of 'transfer' and 'hops' between them,
        efficiencies 'low' and 'high'}.
    """
    chips = math.prod(shape)
    sides = [side for side in shape if side > 1]
    rings = [side % chip.closed == 0 for side in sides]
    speed = sum(chip.link * (2 if ring else 1) for ring in rings)
    transfer = 2 * sum(reductions) * (chips - 1) / chips / speed if sides else 0.0
    distance = sum(side // 2 if ring else side - 1 for side, ring in zip(sides, rings, strict=True))
    hops = 2 * len(reductions) * distance * HOP
    arithmetic, memory = flops / (share * chip.peak), accessed / chip.bandwidth
    slower = max(arithmetic, memory)
    return {
        'chips': chips,
        'arithmetic': arithmetic,
        'memory': memory,
        'transfer': transfer,
        'hops': hops,
        'low': arithmetic / (arithmetic + transfer + hops),
        'high': slower / (slower + transfer + hops),
    }

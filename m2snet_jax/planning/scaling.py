"""A model of how a step scales to more chips, from the figures of the compiler."""

import math

from m2snet_jax.planning.chips import Chip

SHARE = 0.5  # of peak that the arithmetic reaches; the higher it is, the more communication counts
HOP = 1e-6  # seconds from a chip to its neighbour, "How to Scale Your Model" (jax-ml.github.io/scaling-book)
# The usual slices of each number of axes.
SHAPES = {2: ((2, 2), (4, 4), (8, 8), (16, 16)), 3: ((2, 2, 1), (2, 4, 4), (4, 4, 4), (4, 8, 8))}


def scaling(
    chip: Chip, flops: float, accessed: float, collectives: dict, compiled_for: int, shape: tuple, share: float = SHARE
) -> dict[str, float]:
    """Returns the times of one training step on a torus of chips, and its efficiency compared with one chip.

    Assumptions: the same number of images per chip on every slice, so that arithmetic, the bytes reduced and the bytes
    that each chip sends to a gather are constant; nothing overlaps; a gather passes every axis of the torus once, a
    reduction twice (scatter and gather); a ring uses its links in both directions, a line in one; input keeps up.

    The time on one chip is unknown, so the efficiency has two bounds: `low` assumes a step of arithmetic alone at
    `share` of peak, too short for layers with few channels; `high` assumes that every byte touched is read from
    memory, which is too long, since some stay on the chip.

    Args:
        flops, accessed: arithmetic and bytes touched by a step on one chip.
        collectives: of a step, as `count_collectives` returns them; all-reduces and all-gathers count.
        compiled_for: chips of the mesh that the collectives were compiled for.
        shape: chips along each axis.

    Returns:
        {'chips', seconds of 'arithmetic' and 'memory' on every chip and of 'transfer' and 'hops' between them,
        efficiencies 'low' and 'high'}.
    """
    chips = math.prod(shape)
    reduced, gathered = (collectives.get(kind, {'count': 0, 'bytes': 0}) for kind in ('all-reduce', 'all-gather'))
    sent = 2 * reduced['bytes'] + gathered['bytes'] * chips / compiled_for
    sides = [side for side in shape if side > 1]
    rings = [side % chip.closed == 0 for side in sides]
    speed = sum(chip.link * (2 if ring else 1) for ring in rings)
    transfer = sent * (chips - 1) / chips / speed if sides else 0.0
    distance = sum(side // 2 if ring else side - 1 for side, ring in zip(sides, rings, strict=True))
    hops = (2 * reduced['count'] + gathered['count']) * distance * HOP
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

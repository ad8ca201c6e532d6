"""A model of how a step scales to more chips, from the figures of the compiler."""

import math

from m2snet_jax.planning.chips import Chip

HOP = 1e-6  # seconds from a chip to its neighbour, "How to Scale Your Model" (jax-ml.github.io/scaling-book)
# The usual slices of each number of axes.
SHAPES = {2: ((2, 2), (4, 4), (8, 8), (16, 16)), 3: ((2, 2, 1), (2, 4, 4), (4, 4, 4), (4, 8, 8))}


def scaling(
    chip: Chip, computation: float, collectives: dict, compiled_for: int, shape: tuple[int, ...]
) -> dict[str, float]:
    """Returns the times of one training step on a torus of chips, and its efficiency compared with one chip.

    Assumptions: the same number of images per chip on every slice, so that computation, the bytes reduced and the bytes
    that each chip sends to a gather are constant; nothing overlaps; a gather passes every axis of the torus once, a
    reduction twice (scatter and gather); a ring uses its links in both directions, a line in one; input keeps up.

    Args:
        computation: seconds of a step on one chip, by the compiler's estimates.
        collectives: of a step, as `count_collectives` returns them; all-reduces and all-gathers count.
        compiled_for: chips of the mesh that the collectives were compiled for.
        shape: chips along each axis.

    Returns:
        {'chips', seconds of 'computation' on every chip and of 'transfer' and 'hops' between them, 'efficiency'}.
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
    return {
        'chips': chips,
        'computation': computation,
        'transfer': transfer,
        'hops': hops,
        'efficiency': computation / (computation + transfer + hops),
    }

"""How a step's speed holds up on more devices: measured on this computer's CPU, and a written model for chips."""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile

from m2snet_jax.errors import InputError
from m2snet_jax.hosts import ADDRESS, COUNT, INDEX

LAYOUTS = ((1, 1), (1, 2), (2, 1))  # processes, and the devices of each
LIMIT = 1800  # seconds after which a layout counts as stuck

SHARE = 0.5  # of peak that the arithmetic reaches; a higher share makes communication weigh more
HOP = 1e-6  # seconds from a chip to its neighbour, "How to Scale Your Model" (jax-ml.github.io/scaling-book)
# The usual slices of each number of axes.
SHAPES = {2: ((2, 2), (4, 4), (8, 8), (16, 16)), 3: ((2, 2, 1), (2, 4, 4), (4, 4, 4), (4, 8, 8))}


def scaling(chip, flops, accessed, collectives, compiled_for, shape, share=SHARE):
    """Returns the times of one training step on a torus of chips, and what is kept of one chip's speed.

    Assumptions: the same images a chip on every slice, so that arithmetic, the bytes reduced and those that each chip
    gives to a gather stay the same; nothing overlaps; a gather goes once along every axis of the torus, a reduction
    twice, to scatter and to gather; a ring uses its links in both directions, a line in one; input keeps up.

    How long one chip alone takes is not known. The efficiency is given for two guesses: `low`, as if arithmetic at
    `share` of peak were all, which is too short a step for layers with few channels; and `high`, as if every byte that
    an operation touches came from memory, which is too long a step, since some stay on the chip.

    Args:
        chip: a Chip with `axes`.
        flops, accessed: arithmetic and bytes touched by a step on one chip.
        collectives: of a step, as `count_collectives` returns them; the all-reduces and the all-gathers count.
        compiled_for: chips of the mesh that the collectives were compiled for.
        shape: chips along each axis.
        share: see above.

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


def measure(arguments):
    """Times the training step on one device, on two and in two processes, all on this computer's CPU, in turn.

    The cores are the same every time, so what is lost is the price of dividing the work, not of a network.

    Args:
        arguments: of the command `benchmark` for the step, as `--config=quickstart --batch=8`.

    Returns:
        [{'processes', 'devices' of each, 'images_per_second', 'lost': share of the first one's}].

    Raises:
        InputError: a layout failed, or was stuck; with its own last words.
    """
    results = []
    for processes, count in LAYOUTS:
        rate = _run(processes, count, [*arguments, '--what=training', '--json'])['training']['images_per_second']
        lost = 1 - rate / results[0]['images_per_second'] if results else 0.0
        results.append({'processes': processes, 'devices': count, 'images_per_second': rate, 'lost': lost})
    return results


def _run(processes, count, arguments):
    """Runs `benchmark` in processes that meet each other and returns what the first one prints."""
    together = '--distributed' if processes > 1 else '--nodistributed'
    command = [sys.executable, '-m', 'm2snet_jax', 'benchmark', *arguments, together]
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    alone = {key: value for key, value in os.environ.items() if key not in (ADDRESS, COUNT, INDEX)}
    alone |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(count)}
    with tempfile.TemporaryFile('w+') as errors:
        started = []
        try:
            for index in range(processes):
                met = {ADDRESS: address, COUNT: str(processes), INDEX: str(index)} if processes > 1 else {}
                output = subprocess.PIPE if index == 0 else subprocess.DEVNULL
                started.append(subprocess.Popen(command, env=alone | met, stdout=output, stderr=errors, text=True))
            text, _ = started[0].communicate(timeout=LIMIT)
            failed = any([process.wait(LIMIT) for process in started])
        except subprocess.TimeoutExpired:
            failed = True
            text = f'error: no result within {LIMIT} s'
        finally:
            for process in started:
                process.kill()
        if failed:
            errors.seek(0)
            said = [text, *errors.read().splitlines()]
            words = [line for line in said if line.startswith('error: ')] or said
            raise InputError(f'{processes} process(es) with {count} device(s): {words[-1].removeprefix("error: ")}')
    return json.loads(text.splitlines()[-1])  # the library through which processes meet prints a line of its own

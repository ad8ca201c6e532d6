"""The training step on one device, on two, and in two processes of this computer."""

import json
import socket
import subprocess
import sys
import tempfile
from typing import Any

from m2snet_jax.devices.processes import ADDRESS, COUNT, INDEX, cpu_environment
from m2snet_jax.errors import InputError

LAYOUTS = ((1, 1), (1, 2), (2, 1))  # processes, and the devices of each
LIMIT = 1800  # seconds after which a layout fails


def time_layouts(arguments: list[str]) -> list[dict[str, Any]]:
    """Times the training step on one device, on two and in two processes, in turn, on this computer's CPU.

    All use the same cores, so the loss is the cost of dividing the work, not of a network.

    Args:
        arguments: of the command `benchmark` for the step, as `--config=quickstart --batch=8`.

    Returns:
        [{'processes', 'devices' of each, 'images_per_second', 'lost': share of the first one's}].

    Raises:
        InputError: a layout failed or timed out; the message is its last line.
    """
    results = []
    for processes, count in LAYOUTS:
        rate = _run(processes, count, [*arguments, '--what=training', '--json'])['training']['images_per_second']
        lost = 1 - rate / results[0]['images_per_second'] if results else 0.0
        results.append({'processes': processes, 'devices': count, 'images_per_second': rate, 'lost': lost})
    return results


def _run(processes: int, count: int, arguments: list[str]) -> dict[str, Any]:
    """Runs `benchmark` in connected processes and returns what the first one prints."""
    together = '--distributed' if processes > 1 else '--nodistributed'
    command = [sys.executable, '-m', 'm2snet_jax', 'benchmark', *arguments, together]
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    alone = cpu_environment(count)
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
    return json.loads(text.splitlines()[-1])  # the library that connects processes prints a line of its own

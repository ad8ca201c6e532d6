"""Serves a web page on this machine to try a model: choose an image or a clip, see map and findings, download them.

python -m m2snet_jax demo --model=RUN|FILE|PATTERN … [--port=7860] [--config=NAME] [--tta=flips] [--calibrated]

Only this machine can open the page, and no image leaves the machine. For a file of weights, --config defines the model
and its size, by default M2SNet at 352 pixels. Several models, flips and the temperature are used as in `predict`. The
mask is that of `predict --threshold`, at the threshold chosen on the page; the findings are as in `predict --table`.
Gradio is required: pip install "gradio>=6.9,<7". Ctrl-C ends the command. For research, not a medical device.
"""

import contextlib
import sys
import tempfile
import threading
from pathlib import Path

from absl import flags

from m2snet_jax.commands import define_models, load_predictor, parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 ended by Ctrl-C, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        define_models(values)
        flags.DEFINE_integer('port', 7860, 'port of the page, http://127.0.0.1:PORT', 1, 65535, flag_values=values)

    config, _, values, _ = parse(argv, __doc__, define, config='default')
    if not values.model:
        raise InputError('--model is missing')

    import numpy as np

    from m2snet_jax.demo.interface import build_page, gradio_library, launch
    from m2snet_jax.devices.memory import keep_freed_memory
    from m2snet_jax.devices.programs import use_compilation_cache

    gradio_library()
    use_compilation_cache()
    keep_freed_memory()
    predictor = load_predictor(values, config)
    print('compiling the model', file=sys.stderr, flush=True)
    predictor.probabilities([np.zeros((8, 8), np.uint8)])  # so that the first image need not wait
    with tempfile.TemporaryDirectory() as folder:
        page = build_page(predictor, ', '.join(Path(model).resolve().name for model in values.model), folder)
        try:
            address = launch(page, values.port)
        except OSError:
            raise InputError(
                f'--port={values.port}: cannot be used, perhaps because another program uses it; name another port'
            ) from None
        print(f'open {address} in a browser; Ctrl-C ends it', file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.close(verbose=False)

"""A web page on this machine for trying a model: drop an image, see map and overlay, choose a threshold, get the mask.

python -m m2snet_jax demo --model=RUN|FILE [--port=7860] [--config=NAME]

The page is served to this machine only, and no image leaves it. A file of weights takes its model and size from
--config, by default M2SNet at 352 pixels. The mask is what `predict --threshold` writes. Needs Gradio: pip install
"gradio>=6.9,<7". Ends with Ctrl-C. For research, not a medical device.
"""

import contextlib
import sys
import tempfile
import threading
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 ended by Ctrl-C, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('model', None, 'folder of a run, or a file of weights', flag_values=values)
        flags.DEFINE_integer('port', 7860, 'where the page is: http://127.0.0.1:PORT', 1, 65535, flag_values=values)

    config, _, values, _ = parse(argv, __doc__, define, config='default')
    if values.model is None:
        raise InputError('--model is missing')

    import numpy as np

    from m2snet_jax.demo.interface import build_page, gradio_library, launch
    from m2snet_jax.devices.memory import keep_freed_memory
    from m2snet_jax.devices.programs import use_compilation_cache
    from m2snet_jax.prediction.predictor import load_model

    gradio_library()
    use_compilation_cache()
    keep_freed_memory()
    predictor = load_model(values.model, config=config)
    print('compiling the model', file=sys.stderr, flush=True)
    predictor.probabilities([np.zeros((8, 8), np.uint8)])  # so that the first image need not wait
    with tempfile.TemporaryDirectory() as folder:
        page = build_page(predictor, Path(values.model).resolve().name, folder)
        try:
            address = launch(page, values.port)
        except OSError:
            raise InputError(
                f'--port={values.port}: cannot be used; another program may have it, name another'
            ) from None
        print(f'open {address} in a browser; Ctrl-C ends it', file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.close(verbose=False)

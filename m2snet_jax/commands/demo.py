"""A web page on this machine for trying a model: drop an image, see map and overlay, choose a threshold, get the mask.

python -m m2snet_jax demo --model=RUN|FILE [--port=7860] [--config=NAME]

The page is served to this machine alone, and no image leaves it. A file of weights takes its model and size from
--config, by default M2SNet at 352 pixels. The mask is what `predict --threshold` writes. Needs Gradio: pip install
"gradio>=6.9,<7". Ends with Ctrl-C. For research, not a medical device.
"""

import contextlib
import os
import sys
import tempfile
import threading
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

NOTICE = '**Research use, not a medical device.** Images stay on the machine that runs this page.'
STYLE = """
.picture img{width:100%!important;height:100%!important;object-fit:contain!important}
"""


def main(argv):
    """Runs the command; returns its exit status: 0 ended by Ctrl-C, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('model', None, 'folder of a run, or a file of weights', flag_values=values)
        flags.DEFINE_integer('port', 7860, 'where the page is: http://127.0.0.1:PORT', 1, 65535, flag_values=values)

    named = any(word.lstrip('-').partition('=')[0] in ('config', 'help', 'h') for word in argv[1:])
    config, values, words = parse(argv if named else [argv[0], '--config=default', *argv[1:]], __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')
    if values.model is None:
        raise InputError('--model is missing')
    _gradio()

    from m2snet_jax import memory, mesh

    mesh.use_compilation_cache()
    memory.keep_freed_memory()
    import numpy as np

    from m2snet_jax.predictor import load_model

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


def build_page(predictor, name, folder):
    """Returns the page as `gradio.Blocks`.

    Args:
        predictor: a Predictor.
        name: of the model, in the heading.
        folder: where masks are kept for download.
    """
    gradio = _gradio()

    def predict(path):
        try:
            return None if path is None else predicted(predictor, path)
        except InputError as error:
            raise gradio.Error(str(error).replace(str(Path(path).parent) + os.sep, ''), print_exception=False) from None

    def draw(case, threshold, number):
        if case is None:
            return None, None, 'Drop an image above.', gradio.DownloadButton(value=None, interactive=False)
        picture, levels, mask = drawn(case, threshold, int(number))
        path = Path(tempfile.mkdtemp(dir=folder)) / f'{case["name"]}_mask.png'
        write_png(path, mask)
        words = f'{100 * (mask > 0).mean():.1f} % of the image is marked: the probability is {threshold:g} or more.'
        return picture, levels, words, gradio.DownloadButton(value=path, interactive=True)

    from m2snet_jax.images import write_png

    classes = [str(number) for number in range(1, predictor.classes + 1)]
    # No calls home, and what people drop is deleted an hour later and at the end.
    with gradio.Blocks(title=f'{name}: M2SNet', analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown(f'# {name}\n{NOTICE} The network runs at {predictor.size} pixels.')
        case = gradio.State()
        with gradio.Row():
            with gradio.Column():
                gradio.Markdown('Your image')
                image = gradio.Image(
                    type='filepath', image_mode=None, sources=['upload', 'clipboard'], show_label=False, height=300,
                    elem_classes='picture', buttons=[],
                )  # fmt: skip
                threshold = gradio.Slider(0.01, 0.99, 0.5, step=0.01, label='threshold: lowest probability marked')
                number = gradio.Radio(classes, value='1', label='class', visible=len(classes) > 1)
                words = gradio.Markdown('Drop an image above.')
                mask = gradio.DownloadButton('Download the mask', interactive=False, variant='primary', size='md')
            with gradio.Column():
                picture, levels = (_picture(gradio, text) for text in ('What is marked', 'Map: black 0, white 1'))
        takes, gives = [case, threshold, number], [picture, levels, words, mask]
        image.change(predict, image, case, api_visibility='private').then(draw, takes, gives, api_visibility='private')
        for control in (threshold, number):
            control.input(
                draw, takes, gives, trigger_mode='always_last', show_progress='hidden', api_visibility='private'
            )
    return page


def _picture(gradio, text):
    """A picture that can be enlarged and kept, not shared elsewhere, with a line of text above."""
    gradio.Markdown(text)
    buttons = ['fullscreen', 'download']
    return gradio.Image(
        format='png', interactive=False, show_label=False, height=300, buttons=buttons, elem_classes='picture'
    )


def launch(page, port):
    """Serves a page to this machine alone and returns its address; raises OSError where the port is taken."""
    fonts = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['ui-monospace', 'monospace']}  # nothing is fetched
    theme = _gradio().themes.Default(primary_hue='blue', **fonts)
    _, address, _ = page.launch(
        server_name='127.0.0.1', server_port=port, share=False, prevent_thread_lock=True, quiet=True, theme=theme,
        css=STYLE, footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False,
    )  # fmt: skip
    return address


def predicted(predictor, path):
    """Returns {'name', 'pixels' uint8 [H, W, 3], 'levels' uint8 [H, W, classes]} of an image file.

    The levels are the maps that `predict` writes.
    """
    import numpy as np

    from m2snet_jax.images import read_image
    from m2snet_jax.predictor import released_map

    pixels = read_image(path)
    channels = np.moveaxis(predictor.probabilities([pixels])[0], -1, 0)
    levels = np.stack([released_map(channel, *pixels.shape[:2]) for channel in channels], -1)
    return {'name': Path(path).stem, 'pixels': pixels, 'levels': levels}


def drawn(case, threshold, number=1):
    """Returns (image with outline [H, W, 3], map [H, W], mask [H, W] of 0 and 255), uint8, of one class.

    Args:
        case: as `predicted` returns it.
        threshold: lowest probability inside.
        number: of the class, from 1.
    """
    import numpy as np

    from m2snet_jax.plot import overlay

    levels = case['levels'][..., number - 1]
    mask = np.where(levels >= threshold * 255, 255, 0).astype(np.uint8)
    return overlay(case['pixels'], None, mask), levels, mask


def _gradio():
    """Returns the library, told not to call home."""
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio
    except ImportError:
        raise InputError('the demo needs Gradio, which is not installed: pip install "gradio>=6.9,<7"') from None
    return gradio

"""The page of the demo, in Gradio: drop an image, see map and overlay, choose a threshold, get the mask."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images.drawing import overlay
from m2snet_jax.images.formats import read_image, write_png
from m2snet_jax.prediction.predictor import Predictor, is_lesion, released_map

NOTICE = '**Research use, not a medical device.** Images stay on the machine that runs this page.'

STYLE = '.picture img{width:100%!important;height:100%!important;object-fit:contain!important}'


def build_page(predictor: Predictor, name: str, folder: str) -> Any:
    """Returns the page as `gradio.Blocks`.

    Args:
        name: of the model, in the heading.
        folder: where masks are kept for download.
    """
    gradio = gradio_library()

    def predict(path: str | None) -> dict[str, Any] | None:
        if path is None:
            return None
        try:
            return predicted(predictor, path)
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

    classes = [str(number) for number in range(1, predictor.classes + 1)]
    # No telemetry; uploaded images are deleted after an hour and at the end.
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
    """A picture with a line of text above, which can be enlarged and downloaded."""
    gradio.Markdown(text)
    shown = {'format': 'png', 'interactive': False, 'show_label': False, 'height': 300, 'elem_classes': 'picture'}
    return gradio.Image(buttons=['fullscreen', 'download'], **shown)


def launch(page: Any, port: int) -> str:
    """Serves a page to this machine only and returns its address; raises OSError where the port is taken."""
    fonts = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['ui-monospace', 'monospace']}  # nothing is fetched
    theme = gradio_library().themes.Default(primary_hue='blue', **fonts)
    _, address, _ = page.launch(
        server_name='127.0.0.1', server_port=port, share=False, prevent_thread_lock=True, quiet=True, theme=theme,
        css=STYLE, footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False,
    )  # fmt: skip
    return address


def predicted(predictor: Predictor, path: str | Path) -> dict[str, Any]:
    """Returns the `name` of an image file, its `pixels`, and the `levels` of every class that `predict` writes."""
    pixels = read_image(path)
    levels = released_map(predictor.probabilities([pixels])[0], *pixels.shape[:2])
    return {'name': Path(path).stem, 'pixels': pixels, 'levels': levels}


def drawn(
    case: dict[str, Any], threshold: float, number: int = 1
) -> tuple[UInt8[np.ndarray, 'height width 3'], UInt8[np.ndarray, 'height width'], UInt8[np.ndarray, 'height width']]:
    """Returns the image with the outline, the map, and the mask of 0 and 255, of one class.

    Args:
        case: as `predicted` returns it.
        threshold: lowest probability inside.
        number: of the class, from 1.
    """
    levels = case['levels'][..., number - 1]
    mask = np.where(is_lesion(levels, threshold), 255, 0).astype(np.uint8)
    return overlay(case['pixels'], None, mask), levels, mask


def gradio_library() -> Any:
    """Returns the library with its telemetry off; raises InputError where it is not installed."""
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio  # pyright: ignore[reportMissingImports] (optional)
    except ImportError:
        raise InputError('the demo needs Gradio, which is not installed: pip install "gradio>=6.9,<7"') from None
    return gradio

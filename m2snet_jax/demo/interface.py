"""The page of the demo, in Gradio: drop an image or a clip, see overlay, map and findings, download the mask."""

import os
import tempfile
from pathlib import Path
from typing import Any

from m2snet_jax.demo.trial import PredictedClip, drawn, findings, predict_clip_file, predicted
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import write_png
from m2snet_jax.measurement.findings import about_table, write_table
from m2snet_jax.prediction.predictor import Predictor

NOTICE = '**Research use, not a medical device.** Images stay on the machine that runs this page.'

STYLE = '.picture img{width:100%!important;height:100%!important;object-fit:contain!important}'
COLUMNS = {
    'number': 'lesion', 'area_px': 'area', 'diameter_px': 'diameter', 'perpendicular_px': 'perpendicular',
    'circularity': 'circularity', 'mean_probability': 'probability',
}  # fmt: skip
OF_CLIPS = {'frame': 'frame', 'time_s': 'time, s', 'class': 'class', **COLUMNS}
ROWS = 200  # of a table on the page; its file has all
UNITS = ' Areas and diameters are in pixels.'


def build_page(predictor: Predictor, name: str, folder: str) -> Any:
    """Returns the page as `gradio.Blocks`.

    Args:
        name: of the model, in the heading.
        folder: where masks, tables and clips are kept for download.
    """
    gradio = gradio_library()
    # No telemetry; uploaded images are deleted after an hour and at the end.
    with gradio.Blocks(title=f'{name}: M2SNet', analytics_enabled=False, delete_cache=(600, 3600)) as page:
        averaged = f' Each map is the mean of {predictor.passes} maps.' if predictor.passes > 1 else ''
        gradio.Markdown(f'# {name}\n{NOTICE} The network runs at {predictor.size} pixels.{averaged}')
        with gradio.Tab('Image'):
            _image_tab(gradio, predictor, folder)
        with gradio.Tab('Clip'):
            _clip_tab(gradio, predictor, folder)
    return page


def _image_tab(gradio, predictor, folder):
    """Image on the left, with threshold, findings and downloads; overlay and map on the right."""

    def predict(path: str | None) -> dict[str, Any] | None:
        if path is None:
            return None
        try:
            return predicted(predictor, path)
        except InputError as error:
            raise _shown(gradio, error, path) from None

    def draw(case, threshold, number):
        if case is None:
            empty = [gradio.DownloadButton(value=None, interactive=False)] * 2
            return None, None, 'Drop an image above.', [], *empty
        picture, levels, mask = drawn(case, threshold, int(number))
        found = findings(case, threshold)
        rows = [row for one in found for row in one.rows()]
        path = Path(tempfile.mkdtemp(dir=folder)) / f'{case["name"]}_mask.png'
        table = path.with_name(f'{case["name"]}_findings.csv')
        write_png(path, mask)
        write_table(table, rows, about_table(found, threshold, 0, []))
        shown = [row for row in rows if row['class'] == int(number)]
        words = f'{100 * (mask > 0).mean():.1f} % of the image is marked: the probability is {threshold:g} or more.'
        words += f' Lesions: {len(shown)}.{UNITS}{case["agreement"]}'
        files = [gradio.DownloadButton(value=one, interactive=True) for one in (path, table)]
        return picture, levels, words, _cells(shown, COLUMNS), *files

    classes = [str(number) for number in range(1, predictor.classes + 1)]
    case = gradio.State()
    with gradio.Row():
        with gradio.Column():
            gradio.Markdown('Your image')
            image = gradio.Image(
                type='filepath', image_mode=None, sources=['upload', 'clipboard'], show_label=False, height=300,
                elem_classes='picture', buttons=[],
            )  # fmt: skip
            threshold = _threshold(gradio)
            number = gradio.Radio(classes, value='1', label='class', visible=len(classes) > 1)
            words = gradio.Markdown('Drop an image above.')
            table = _table(gradio, COLUMNS)
            with gradio.Row():
                files = [
                    gradio.DownloadButton(text, interactive=False, variant=variant, size='md')
                    for text, variant in (('Download the mask', 'primary'), ('Download the findings', 'secondary'))
                ]
        with gradio.Column():
            picture, levels = (_picture(gradio, text) for text in ('What is marked', 'Map: black 0, white 1'))
    takes, gives = [case, threshold, number], [picture, levels, words, table, *files]
    image.change(predict, image, case, api_visibility='private').then(draw, takes, gives, api_visibility='private')
    for control in (threshold, number):
        control.input(draw, takes, gives, trigger_mode='always_last', show_progress='hidden', api_visibility='private')


def _clip_tab(gradio, predictor, folder):
    """Clip and settings on the left; the clip with outlines, findings and files on the right."""

    def predict(path, threshold, smooth, progress=gradio.Progress()):  # noqa: B008 (as Gradio finds it)
        if path is None:
            raise gradio.Error('Drop a clip first.', print_exception=False)

        def report(number, announced):
            progress((number, max(announced, number)), unit='frames')

        try:
            clip: PredictedClip = predict_clip_file(predictor, path, folder, threshold, int(smooth), report)
        except InputError as error:
            raise _shown(gradio, error, path) from None
        if clip.fault:
            gradio.Warning(clip.fault)
        more = f' The first {ROWS} rows are shown.' if len(clip.rows) > ROWS else ''
        words = f'{clip.frames} frames, {clip.frames_with_lesions} of them with a lesion.{UNITS}{more}'
        return str(clip.overlay), words, _cells(clip.rows, OF_CLIPS), [str(file) for file in clip.files]

    with gradio.Row():
        with gradio.Column():
            gradio.Markdown('Your clip')
            source = gradio.Video(sources=['upload'], include_audio=True, show_label=False, height=300, buttons=[])
            threshold = _threshold(gradio)
            smooth = gradio.Slider(1, 25, 1, step=1, label='smoothing: frames whose probabilities are averaged')
            start = gradio.Button('Predict the clip', variant='primary')
            words = gradio.Markdown('Drop a clip above.')
        with gradio.Column():
            gradio.Markdown('What is marked')
            shown = gradio.Video(interactive=False, show_label=False, height=300, autoplay=True, loop=True)
            table = _table(gradio, OF_CLIPS)
            files = gradio.File(label='Files', file_count='multiple', interactive=False)
    start.click(predict, [source, threshold, smooth], [shown, words, table, files], api_visibility='private')


def _threshold(gradio):
    return gradio.Slider(0.01, 0.99, 0.5, step=0.01, label='threshold: lowest probability marked')


def _table(gradio, columns):
    return gradio.Dataframe(headers=list(columns.values()), interactive=False, max_height=260, show_label=False)


def _cells(rows, columns):
    """Returns the first rows of a table as they are shown."""
    values = [[row.get(name) for name in columns] for row in rows[:ROWS]]
    return [[f'{value:.4g}' if isinstance(value, float) else value for value in row] for row in values]


def _shown(gradio, error, path):
    """Returns an error as the page shows it, without the folder that Gradio keeps an upload in."""
    return gradio.Error(str(error).replace(str(Path(path).parent) + os.sep, ''), print_exception=False)


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


def gradio_library() -> Any:
    """Returns the library with its telemetry off; raises InputError where it is not installed."""
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio  # pyright: ignore[reportMissingImports] (optional)
    except ImportError:
        raise InputError('the demo needs Gradio, which is not installed: pip install "gradio>=6.9,<7"') from None
    return gradio

"""HTML pages from the templates of this room. A page is one file that fetches nothing and runs no script."""

import base64
import functools
import io

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from m2snet_jax.images import drawing
from m2snet_jax.report import charts


def render(template: str, **values: object) -> str:
    """Returns a page.

    Args:
        template: its file in `templates/`.
        values: what it shows. All text is escaped; charts, which `charts` makes, are not.

    Raises:
        jinja2.UndefinedError: the template shows a value that is not given.
    """
    return _templates().get_template(template).render(values)


@functools.cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader('m2snet_jax.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {'light': charts.LIGHT, 'dark': charts.DARK, 'chart_style': charts.STYLE}
    errors = {'hit': drawing.HIT, 'missed': drawing.MISSED, 'false_alarm': drawing.FALSE}
    templates.globals |= {name: '#{:02x}{:02x}{:02x}'.format(*colour) for name, colour in errors.items()}
    return templates


def picture_url(pixels: UInt8[np.ndarray, 'height width 3']) -> str:
    """Returns an image as a URL that holds it, a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=80)
    return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()

"""The page of masks compared with a reference: found, missed and invented lesions, and Bland–Altman charts."""

from collections.abc import Sequence
from typing import Any

from m2snet_jax.measurement.agreement import Agreement, Difference
from m2snet_jax.report.charts import difference_chart
from m2snet_jax.report.rendering import render

NAMES = {
    'area_px': ('Area', 'pixels'),
    'diameter_px': ('Largest diameter', 'pixels'),
    'area_mm2': ('Area', 'mm²'),
    'diameter_mm': ('Largest diameter', 'mm'),
    'volume_ml': ('Volume', 'ml'),
}


def agreement_page(agreement: Agreement, about: dict[str, Any], left_out: Sequence[str] = ()) -> str:
    """Returns a comparison as one HTML file that needs nothing else.

    `about` is shown above its charts, and before it `left_out`, a line for each image or file that is not compared.
    """
    measures = [(difference, *NAMES[difference.measure]) for difference in agreement.differences]
    figures = [
        (
            _chart(difference, unit),
            f'{name} of found lesions: masks minus reference against the mean of both, in {unit}',
        )
        for difference, name, unit in measures
    ]
    table = [
        (f'{name}, {unit}', [_figure(value) for value in (difference.bias, difference.low, difference.high)])
        for difference, name, unit in measures
    ]
    images = dict.fromkeys(row['image'] for row in agreement.rows if row['outcome'] != 'found')
    wrong = [(image, _counts(agreement, image)) for image in images]
    return render(
        'agreement.html.j2',
        title='Lesions compared with a reference',
        counts={outcome: agreement.count(outcome) for outcome in ('found', 'missed', 'invented')},
        about=about,
        left_out=left_out,
        figures_of=figures,
        table=table,
        wrong=wrong,
    )


def _chart(difference: Difference, unit: str):
    levels = [value for value in (difference.low, difference.bias, difference.high) if value is not None]
    return difference_chart(difference.means, difference.differences, levels, f'mean, {unit}', f'difference, {unit}')


def _counts(agreement: Agreement, image: str) -> list[int]:
    outcomes = [row['outcome'] for row in agreement.rows if row['image'] == image]
    return [outcomes.count(outcome) for outcome in ('found', 'missed', 'invented')]


def _figure(value: float | None) -> str:
    return '–' if value is None else f'{value:.4g}'

"""The claims of a study: which its runs support, which they contradict, and which stay undecided."""

from typing import Any

from m2snet_jax.metrics.seeds import holm
from m2snet_jax.study.definition import Study

SCORE = 'hard/Dice'
ALPHA = 0.05  # probability that any of the claims is called supported or contradicted although there is no difference


def decide_claims(study: Study, test_sets: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each claim of a study on each test set with lesions.

    A claim is decided by the corrected p-value (`holm`) of all of them. One whose runs are not finished counts with
    the p-value 1.

    Args:
        test_sets: of what `study_table` returns.

    Returns:
        list of dicts of `test_set`, `name`, `against`, `claim`; `difference`, `low`, `high`, `p_value`, None before
        there are; `corrected`, the corrected p-value; and `verdict`, 'supported', 'contradicted' or 'undecided'.
    """
    rows = []
    for test_set, entry in test_sets.items():
        found = {(row['name'], row['against']): row['scores'].get(SCORE) for row in entry['differences']}
        if not any(SCORE in row['scores'] for row in entry['rows']):
            continue
        for variant in study.variants:
            if variant.claim:
                against = variant.against or study.variants[0].name
                one = found.get((variant.name, against)) or {}
                keys = ('difference', 'low', 'high', 'p_value')
                about = {'test_set': test_set, 'name': variant.name, 'against': against, 'claim': variant.claim}
                rows.append(about | {key: one.get(key) for key in keys})
    corrected = holm([1.0 if row['p_value'] is None else row['p_value'] for row in rows])
    for row, p_value in zip(rows, corrected, strict=True):
        row['corrected'] = p_value
        row['verdict'] = 'undecided' if p_value > ALPHA else _verdict(row)
    return rows


def _verdict(row):
    return 'supported' if (row['difference'] < 0) == (row['claim'] == 'lower') else 'contradicted'


def claim_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the table of claims as lines of text, with their heading; none without claims."""
    if not rows:
        return []
    lines = [f'{len(rows)} claims about {SCORE}; p by Holm: corrected for their number']
    for row in rows:
        claim = f'{row["name"]} {row["claim"]} than {row["against"]}, {row["test_set"]}'
        figures = 'no interval yet'
        if row['p_value'] is not None:
            figures = f'{row["difference"]:+.3f} ({row["low"]:+.3f} … {row["high"]:+.3f})'
            figures += f'  p {row["p_value"]:.3f}  by Holm {row["corrected"]:.3f}'
        lines.append(f'  {claim:44}{row["verdict"]:14}{figures}')
    return lines

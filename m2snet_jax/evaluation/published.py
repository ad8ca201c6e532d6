"""Published scores of MSNet and M²SNet with their sources, which every sheet shows beside protocol `released`.

A measurement shows that the released script computed these columns, see docs/scores.md. A figure that none of the
sources prints is left out.
"""

Published = dict[str, dict[str, dict[str, str]]]  # {score: {model: dict of figure, column and sources}}
SOURCES = {
    'P': "the authors' own pictures of their tables VI and VIII, in their repository Xiaoqi-Zhao-DLUT/MSNet-M2SNet",
    'Y': 'Yi et al., Optics and Precision Engineering 32(18):2846, 2024, table 1 and abstract',
    'E': 'README of SEPNet (wangtong627/SEPNet), whose rows of M²SNet are copied from the paper',
    'C': 'a single secondary table',
}
CAPTION = "Published figures: probably by the released program's script (docs/scores.md); letters name their sources."

_POLYP = {'mDice': 'Dice', 'mIoU': 'IoU', 'Fw': 'wFm', 'S': 'Sm', 'E': 'Em', 'MAE': 'MAE'}
_VIDEO = {'mDice': 'Dice', 'mIoU': 'IoU', 'S': 'Sm', 'MAE': 'MAE'}
_COVID = {'DSC': 'Dice', 'S': 'Sm', 'MAE': 'MAE'}
_BUSI = {'Jaccard': 'IoU', 'Dice': 'Dice'}  # the specificity, 98.29 and 98.35 %, has no counterpart in `released`

# (dataset, test set): (published column: score of `released`), MSNet, M²SNet; each figure with the letters of its
# sources, percentages as fractions.
_TABLES = {
    ('polyp', 'Kvasir'): (_POLYP, '.907C .862C — — — —', '.912YE .861YE .901E .924E .953E .025E'),
    ('polyp', 'CVC-ClinicDB'): (
        _POLYP,
        '.921Y .879Y .914Y .941Y .972Y .008Y',
        '.922YE .880YE .917YE .942YE .970YE .009YE',
    ),
    ('polyp', 'CVC-ColonDB'): (_POLYP, '.755C .678C — — — —', '.758YE .685E .737E .842E .869E .038E'),
    ('polyp', 'ETIS-LaribPolypDB'): (_POLYP, '.719P .664P .678P — .830P —', '.749P .678P .712P .846E .872P .017E'),
    ('polyp', 'CVC-300'): (_POLYP, '.869C .807C — — — —', '.903Y — .881E .939E .965E .009E'),
    ('video_polyp', 'CVC-300-TV'): (_VIDEO, '.837P .755P .895P .014P', '.876P .805P .918P .010P'),
    ('covid19', 'test'): (_COVID, '.779P .846P .007P', '.795P .855P .006P'),
    ('busi', 'test'): (_BUSI, '.7057±.0338P .7818±.0375P', '.7152±.0119P .7921±.0138P'),
}


def published(dataset: str, test_set: str) -> Published:
    """Returns the published figures of a test set, as in the names of scores, of the dataset `config.data.name`.

    `figure` is the figure as printed, `column` its name in the publication, `sources` letters of `SOURCES`.
    """
    columns, *rows = _TABLES.get((dataset, test_set), ({}, '', ''))
    found = {}
    for model, row in zip(('MSNet', 'M²SNet'), rows, strict=True):
        for (column, score), text in zip(columns.items(), row.split(), strict=True):
            figure = text.rstrip(''.join(SOURCES))
            if figure != text:
                entry = {'figure': figure, 'column': column, 'sources': text.removeprefix(figure)}
                found.setdefault(f'released/{score}', {})[model] = entry
    return found


def legend(beside: Published) -> list[str]:
    """Returns lines on the published figures of a test set: what they are, and the sources of those that are shown."""
    shown = [one for models in beside.values() for one in models.values()]
    letters = sorted({letter for one in shown for letter in one['sources']})
    folds = ['±: mean and standard deviation over folds.'] if any('±' in one['figure'] for one in shown) else []
    return [CAPTION, *(f'{letter}: {SOURCES[letter]}.' for letter in letters), *folds] if shown else []

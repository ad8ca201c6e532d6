"""Published results, which stand beside ours in every sheet, with what is doubtful about them."""

SOURCE = (
    'MSNet: Zhao et al., MICCAI 2021, arXiv 2108.05082; M²SNet: Zhao et al., arXiv 2303.10894, as its authors report'
)
PROTOCOL_NOTE = (
    'The papers do not say which program made each column: the published figure stands beside every score it may be.'
)
MEMORY, CONFLICT = 'from memory, not checked against the paper', 'sources conflict'

# Where a column of a published table belongs among our scores.
_POLYP = {
    'mDice': ('reference/Dice', 'pranet/meanDic'),
    'mIoU': ('reference/IoU', 'pranet/meanIoU'),
    'Fw': ('reference/wFm', 'pranet/wFm'),
    'S': ('reference/Sm', 'pranet/Sm'),
    'E': ('reference/Em', 'pranet/meanEm', 'pranet/maxEm'),
    'MAE': ('reference/MAE', 'pranet/MAE'),
}
_VIDEO = {'Dice': _POLYP['mDice'], 'IoU': _POLYP['mIoU'], 'S': _POLYP['S'], 'MAE': _POLYP['MAE']}
_COVID = {'DSC': _POLYP['mDice'], 'S': _POLYP['S'], 'MAE': _POLYP['MAE']}
_BUSI = {'Jaccard': ('hard/IoU',), 'Spec': ('hard/specificity',), 'Dice': ('hard/Dice',)}

# Figures as printed; 'm' marks one from memory, '?' one on which sources conflict; percents as fractions.
_TABLES = {
    ('polyp', 'Kvasir'): (_POLYP, '.907 .862 .893m .922m .944m .028m', '.912 .861 .901 .924 .953 .025'),
    ('polyp', 'CVC-ClinicDB'): (_POLYP, '.921 .879 .914m .941m .972m .008m', '.922 .880 .917 .942 .970 .009'),
    ('polyp', 'CVC-ColonDB'): (_POLYP, '.755 .678 .737m .836m .883m .041m', '.758 .685 .737 .842 .869 .038'),
    ('polyp', 'ETIS-LaribPolypDB'): (_POLYP, '.719 .664 .678 .840 .830 .020m', '.749 .678 .712 .846 .872 .017'),
    ('polyp', 'CVC-300'): (_POLYP, '.869 .807 .849m .925m .943m .010m', '? ? .881 .939 .965 .009'),
    ('video_polyp', 'CVC-300-TV'): (_VIDEO, '.837 .755 .895 .014', '.876 .805 .918 .010'),
    ('covid19', 'test'): (_COVID, '.779 .846 .007', '.795 .855 .006'),
    ('busi', 'test'): (_BUSI, '.7057±.0338 .9829±.0044 .7818±.0375', '.7152±.0119 .9835±.0020 .7921±.0138'),
}


def published(dataset, test_set):
    """Returns {score: {model: {'figure': text, 'note': text}}} of a test set, empty where nothing is published.

    Args:
        dataset: `config.data.name`.
        test_set: as in the names of scores.
    """
    columns, *rows = _TABLES.get((dataset, test_set), ({}, '', ''))
    found = {}
    for model, row in zip(('MSNet', 'M²SNet'), rows, strict=True):
        for (column, names), text in zip(columns.items(), row.split(), strict=True):
            note = f'published as {column}'
            if text.endswith('m'):
                note += f'; {MEMORY}'
            if '±' in text:
                note += '; mean and deviation over folds'
            if text == '?':
                note += f'; {CONFLICT}'
            for name in names:
                found.setdefault(name, {})[model] = {'figure': text.removesuffix('m'), 'note': note}
    return found

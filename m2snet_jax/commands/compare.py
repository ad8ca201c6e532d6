"""Compares the scores of two runs image by image.

python -m m2snet_jax compare RUN_A RUN_B [--resamples=N] [--seed=N] [--json]
python -m m2snet_jax compare --leaks=validate.json RUN [RUN …] [--json]

RUN_A and RUN_B are folders that train or evaluate wrote, with scores of the same images. For each score the command
prints its mean in both runs, the difference B - A with its 95 % interval, and the p value of Wilcoxon's signed-rank
test. The interval is from a paired bootstrap over images, or over clips, the folders in the names of images. Means of
protocol `hard` are over the images with a lesion. Scores that exist only for a whole set, e.g. maxDic, are omitted.
With several classes the score of an image is the mean over its classes, in protocol `hard` over those that the image
contains. The score sheet averages each class over its images first, so its means may differ.

--leaks names validate.json, which `validate --output` writes for the data of the runs. The command compares the test
images that are near-duplicates of training images with the other images of their test set. Several runs are treated as
seeds of one variant; the interval is then over images and seeds. A RUN may also be a JSON file of another program's
scores, as for study --reference.
"""

import json
import sys

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 2 the runs cannot be compared."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_integer('resamples', 2000, 'resamples of the bootstrap', lower_bound=1, flag_values=values)
        flags.DEFINE_integer('seed', 0, 'seed of the bootstrap', flag_values=values)
        about = 'file validate.json: compare near-duplicates of training images with the other test images'
        flags.DEFINE_string('leaks', None, about, flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)

    _, _, values, folders = parse(argv, __doc__, define, config=None, words=True)
    if values.leaks is not None:
        _compare_leaked(folders, values)
        return
    if len(folders) != 2:
        raise InputError(f'compare takes two runs, {len(folders)} were given; example: compare runs/first runs/second')

    from m2snet_jax.evaluation.comparison import compare_runs
    from m2snet_jax.evaluation.sheets import read_summary
    from m2snet_jax.storage import json_value

    table = compare_runs(*folders, resamples=values.resamples, seed=values.seed)
    for folder in folders:
        for warning in read_summary(folder)['warnings']:
            print(f'warning: {folder}: {warning}', file=sys.stderr)
    print(json.dumps(json_value(table), indent=1) if values.json else _text(table, folders))


def _compare_leaked(folders, values):
    from m2snet_jax.evaluation.leaked import compare_leaked
    from m2snet_jax.storage import json_value, local_path

    if not folders:
        raise InputError('compare --leaks takes one run or several; example: compare --leaks=look/validate.json runs/x')
    table = compare_leaked(folders, local_path(values.leaks, '--leaks'))
    if values.json:
        print(json.dumps(json_value(table), indent=1))
        return
    for test_set, entry in table.items():
        near, others = next(iter(entry.values()))['images']
        runs = '1 run' if len(folders) == 1 else f'{len(folders)} runs'
        print(f'{test_set}: {near} images near training images, {others} others, {runs}')
        print(f'  {"":16}{"near":>9}{"others":>9}{"difference":>12}  95 % interval')
        for score, row in entry.items():
            means = f'{row["near"]:9.4f}{row["others"]:9.4f}{row["difference"]:+12.4f}'
            print(f'  {score:16}{means}  {row["low"]:+.4f} … {row["high"]:+.4f}')


def _text(table, folders):
    lines = [f'A {folders[0]}', f'B {folders[1]}']
    for test_set, entry in table.items():
        lines += ['', f'{test_set}: {entry["images"]} images, resampled by {entry["resampled"]}']
        lines += [f'  {"":22}{"A":>9}{"B":>9}{"B - A":>10}  {"95 % interval":20}  p (Wilcoxon)']
        for name, row in entry['scores'].items():
            interval = f'{row["low"]:+.4f} … {row["high"]:+.4f}'
            lines.append(
                f'  {name:22}{row["first"]:9.4f}{row["second"]:9.4f}{row["difference"]:+10.4f}  {interval:20}  '
                f'{row["p_value"]:.4g}'
            )
    return '\n'.join(lines)

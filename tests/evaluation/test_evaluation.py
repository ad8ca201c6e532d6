"""Predicting and scoring test sets: maps of known models against masks, and what the score sheets then say."""

import csv
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from m2snet_jax import load_config, metrics
from m2snet_jax.benchmark.scoring import time_scores
from m2snet_jax.data.datasets import Dataset
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.evaluation.image_scores import score_maps
from m2snet_jax.evaluation.published import _TABLES, legend, published
from m2snet_jax.evaluation.sheets import read_sheets, read_summary, write_sheets
from m2snet_jax.evaluation.test_sets import evaluate
from m2snet_jax.metrics.workers import FEWEST, in_processes

SIZES = ((37, 52), (40, 40), (61, 48), (33, 70))


class Bright:
    """A test set whose lesions are the bright discs of its images; every fifth has none."""

    def __init__(self, count, prefix=''):
        self.count, self.prefix = count, prefix

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        height, width = SIZES[index % len(SIZES)]
        rows, columns = np.mgrid[:height, :width]
        disc = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (6 + index % 7) ** 2
        disc &= index % 5 != 4
        mask = np.where(disc, 255, 0).astype(np.uint8)
        clip = f'{self.prefix}{index // 3}/' if self.prefix else ''
        return {'name': f'{clip}image{index}', 'image': np.repeat(mask[..., None], 3, axis=2), 'mask': mask}


class Classes(Bright):
    """The same with two classes: the upper and the lower half of each disc."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        half = example['mask'].shape[0] // 2
        levels = example['mask'] // 255 * np.where(np.arange(len(example['mask'])) < half, 1, 2)[:, None]
        image = np.repeat((levels * 100).astype(np.uint8)[..., None], 3, axis=2)
        return example | {'mask': levels.astype(np.uint8), 'image': image}


def settings(**keys):
    return load_config('quickstart', **{'data.size': 96, 'evaluate.batch': 3, 'evaluate.bootstrap': 200, **keys})


def dataset(**tests):
    return Dataset(None, None, tests, [], 'hash of the manifest', None)


def level(images):
    """The grey level in 0…1 that a normalised image had."""
    return np.asarray(images)[..., :1] * 0.229 + 0.485


def predictor(predict):
    """What `evaluate` asks of a Predictor."""
    return SimpleNamespace(over=lambda mesh: predict, passes=1)


def run(tests, folder, predict=level, **keys):
    scores, panels = evaluate(predictor(predict), dataset(**tests), settings(**keys), make_mesh(), folder)
    write_sheets(scores, folder)
    return scores.figures, panels


def sheet(folder):
    return json.loads((folder / 'scores' / 'summary.json').read_text())


def test_a_map_that_is_the_mask_scores_one_and_lesion_free_images_stand_apart(tmp_path):
    scores, overlays = run({'test': Bright(10)}, tmp_path, **{'log.images': 3})
    assert scores['test/hard/Dice'] > 0.95
    assert scores['test/hard/count'] == 8
    assert scores['test/lesion_free/count'] == 2
    assert scores['test/lesion_free/false_positive_share'] == 0
    assert sorted(overlays) == ['test/image0', 'test/image1', 'test/image2']
    for index in range(10):
        example = Bright(10)[index]
        found = np.asarray(Image.open(tmp_path / 'maps' / 'test' / f'image{index}.png'))
        assert found.shape == example['mask'].shape
        assert np.mean((found >= 128) != (example['mask'] >= 128)) < 0.01


def test_maps_are_cut_to_bytes_before_they_are_resized(tmp_path):
    def predict(images):
        return np.full((len(images), 96, 96, 1), 0.9999, np.float32)

    run({'test': Bright(1)}, tmp_path, predict)
    assert np.unique(np.asarray(Image.open(tmp_path / 'maps' / 'test' / 'image0.png'))).tolist() == [254]


def test_scores_are_those_of_the_maps_on_disk(tmp_path):
    scores, _ = run({'test': Bright(7)}, tmp_path)
    pairs = [(np.asarray(Image.open(tmp_path / f'maps/test/image{k}.png')), Bright(7)[k]['mask']) for k in range(7)]
    expected = metrics.aggregate_all([metrics.score_all(*pair) for pair in pairs])
    assert scores == pytest.approx({f'test/{name}': value for name, value in expected.items()}, nan_ok=True)
    assert read_summary(tmp_path)['scores'] == pytest.approx(scores, nan_ok=True)
    with (tmp_path / 'scores' / 'per_image.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == [f'image{k}' for k in range(7)]
    for row, pair in zip(rows, pairs, strict=True):
        for protocol in ('released', 'pranet', 'hard'):
            one = metrics.score(*pair, protocol=protocol)
            assert float(row[f'{protocol}/MAE']) == one['MAE']


def test_every_mean_has_an_interval_around_it_and_the_same_seed_gives_the_same(tmp_path):
    scores, _ = run({'test': Bright(10)}, tmp_path / 'first')
    run({'test': Bright(10)}, tmp_path / 'second')
    first, second = sheet(tmp_path / 'first'), sheet(tmp_path / 'second')
    assert first['intervals'] == second['intervals']
    assert first['bootstrap'] == {'resamples': 200, 'seed': 0, 'level': 0.95}
    for name, value in scores.items():
        if not name.endswith(('count', 'missed')):
            low, high = map(float, first['intervals'][name])
            assert np.isnan(value) or low <= value <= high, name


def test_the_sheet_says_what_was_scored_and_how(tmp_path):
    scores, _ = evaluate(predictor(level), dataset(test=Bright(5)), settings(), make_mesh(), tmp_path)
    write_sheets(scores.with_summary(step=7, model_hash='abc'), tmp_path)
    found = sheet(tmp_path)
    assert (found['step'], found['model_hash'], found['manifest_hash']) == (7, 'abc', 'hash of the manifest')
    assert found['test_sets'] == {'test': {'images': 5, 'resampled': 'images'}}
    assert found['protocols']['released']['smooth'] == 1e-5
    assert found['protocols']['pranet']['thresholds'] == 256
    assert found['warnings'] == []
    assert set(found['scores']) == set(scores.figures)
    assert found['scores']['test/released/BER'] == 'nan'


def test_frames_of_a_clip_are_resampled_together(tmp_path):
    def noisy(images):
        """A model that fails on whole clips: images are predicted three by three, and every other clip is missed."""
        noisy.calls += 1
        return level(images) * (noisy.calls % 2)

    noisy.calls = 0
    run({'alone': Bright(24)}, tmp_path / 'alone', noisy)
    noisy.calls = 0
    run({'clips': Bright(24, 'clip')}, tmp_path / 'clips', noisy)
    alone, clips = sheet(tmp_path / 'alone'), sheet(tmp_path / 'clips')
    assert clips['test_sets']['clips']['resampled'] == 'clips'
    assert clips['scores']['clips/hard/Dice'] == alone['scores']['alone/hard/Dice']
    widths = [
        np.diff(sheet_['intervals'][f'{name}/hard/Dice'])[0] for sheet_, name in ((alone, 'alone'), (clips, 'clips'))
    ]
    assert widths[1] > 1.3 * widths[0]


def test_classes_are_scored_apart_and_averaged(tmp_path):
    def predict(images):
        grey = level(images) * 255
        return np.concatenate([np.abs(grey - 100) < 40, np.abs(grey - 200) < 40], -1).astype(np.float32)

    scores, _ = run({'test': Classes(6)}, tmp_path, predict, **{'data.classes': 2})
    assert (tmp_path / 'maps' / 'test' / 'image0_1.png').exists()
    assert (tmp_path / 'maps' / 'test' / 'image0_2.png').exists()
    each = [scores[f'test/class{k}/hard/Dice'] for k in (1, 2)]
    assert min(each) > 0.8
    assert scores['test/hard/Dice'] == pytest.approx(np.mean(each))
    intervals = sheet(tmp_path)['intervals']
    assert {'test/hard/Dice', 'test/class1/hard/Dice', 'test/class2/pranet/maxDic'} <= set(intervals)


def test_the_worst_and_the_best_cases_are_drawn(tmp_path):
    def fails_on_large(images):
        grey = level(images)
        return grey * (np.asarray(grey).mean((1, 2, 3), keepdims=True) < 0.1)

    run({'test': Bright(20)}, tmp_path, fails_on_large)
    cases = json.loads((tmp_path / 'scores' / 'details.json').read_text())['test']['cases']
    worst, best = ([case for case in cases if case['kind'] == kind] for kind in ('worst', 'best'))
    assert len(worst) == 10
    assert len(best) == 5
    assert worst[0]['Dice'] == 0
    assert [case['Dice'] for case in worst] == sorted(case['Dice'] for case in worst)
    assert best[0]['Dice'] == max(case['Dice'] for case in cases)
    assert not {case['name'] for case in worst} & {case['name'] for case in best}
    assert all((tmp_path / 'scores' / 'cases' / case['file']).exists() for case in cases)


def test_a_dataset_without_test_masks_leaves_an_empty_sheet(tmp_path):
    scores, overlays = run({}, tmp_path)
    assert (scores, overlays) == ({}, {})
    assert read_summary(tmp_path)['scores'] == {}


def test_a_checkpoint_chosen_on_the_test_set_is_marked_in_the_sheet(tmp_path):
    config = settings()
    with config.unlocked():
        config.select = 'test'
    scores, _ = evaluate(predictor(level), dataset(test=Bright(2)), config, make_mesh(), tmp_path)
    assert 'chosen on the test set' in scores.summary['warnings'][0]


def test_processes_give_the_scores_that_one_process_gives():
    source = Bright(FEWEST)
    items = [(source[k]['image'][..., :1], source[k]['mask'], 1) for k in range(FEWEST)]
    alone = [score_maps(*item) for item in items]
    several = list(in_processes(score_maps, iter(items), FEWEST, processes=2))
    for first, second in zip(alone, several, strict=True):
        np.testing.assert_equal(first, second)


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(in_processes(divmod, [(1, 1), (1, 0)] * FEWEST, FEWEST, processes=2))


def test_work_is_not_taken_far_ahead_of_the_results():
    taken = []

    def items():
        for number in range(200):
            taken.append(number)
            yield number, 7

    for done, _ in enumerate(in_processes(divmod, items(), 200, processes=2)):
        assert len(taken) <= done + 12
        time.sleep(0.0005)
    assert done == 199


def test_workers_end_with_the_work():
    results = in_processes(os.getpid, [()] * 100, 100, processes=2)
    process = next(results)
    assert process != os.getpid()
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_throughput_times_every_part():
    times = time_scores(pairs=2, images=3, height=40, width=50)
    assert set(times) == {'all_but_wFm', 'both_protocols', 'hard', 'everything', 'images', 'seconds'}
    assert all(value > 0 for value in times.values())


def test_scores_read_back_are_those_that_were_written(tmp_path):
    scores, _ = evaluate(predictor(level), dataset(test=Bright(6)), settings(), make_mesh(), tmp_path)
    write_sheets(scores, tmp_path)
    again = read_sheets(tmp_path)
    assert again.figures == pytest.approx(scores.figures, nan_ok=True)
    assert again.details == scores.details
    assert [{key: str(value) for key, value in row.items()} for row in scores.per_image] == again.per_image


def test_published_figures_have_a_source_and_lie_beside_the_released_protocol():
    kvasir = published('polyp', 'Kvasir')
    assert kvasir['released/Dice']['M²SNet'] == {'figure': '.912', 'column': 'mDice', 'sources': 'YE'}
    assert set(kvasir['released/Sm']) == {'M²SNet'}  # no source prints it for MSNet
    assert published('polyp', 'CVC-300')['released/Dice']['M²SNet']['figure'] == '.903'
    assert published('busi', 'test')['released/IoU']['MSNet']['figure'] == '.7057±.0338'
    for (dataset_name, test_set), _ in _TABLES.items():
        beside = published(dataset_name, test_set)
        assert beside
        assert all(score.startswith('released/') for score in beside)
        assert all(one['sources'] for models in beside.values() for one in models.values())
        letters = {letter for models in beside.values() for one in models.values() for letter in one['sources']}
        assert {line[0] for line in legend(beside)[1:] if line[1] == ':'} >= letters
    assert published('folder', 'test') == {}
    assert legend({}) == []

"""What a run tells TensorBoard and Weights & Biases, read back from what was written or handed over."""

import struct
import sys
import time
import types

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from m2snet_jax import InputError, config_values, load_config
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.metrics import calibration_counts
from m2snet_jax.metrics.precision_recall import THRESHOLDS, precision_recall
from m2snet_jax.training.logs import Logs
from m2snet_jax.training.samples import Samples

RECALL = 5  # row of a precision–recall curve, after TP, FP, TN, FN and precision


def events(folder):
    """All values of a folder's event file: TFRecords, each a length, its checksum, the data and their checksum."""
    (path,) = folder.glob('events.out.tfevents.*')
    data, start = path.read_bytes(), 0
    while start < len(data):
        (length,) = struct.unpack_from('<Q', data, start)
        event = Event.FromString(data[start + 12 : start + 12 + length])
        yield from ((event.step, value) for value in event.summary.value)
        start += length + 16


@pytest.fixture
def levels():
    """Levels of a map and its mask, int [256] each: pixels, and lesion pixels."""
    generator = np.random.default_rng(0)
    prediction = generator.integers(0, 256, (40, 50), np.uint8)
    mask = np.where(generator.random((40, 50)) < prediction / 255, 255, 0).astype(np.uint8)
    return prediction, mask, calibration_counts(prediction, mask, 256)[::2]


def test_a_precision_recall_curve_counts_pixels(levels):
    prediction, mask, counts = levels
    curve = precision_recall(*counts)
    for k in (0, 1, 40, 63, 125, 126):
        positive, lesion = prediction / 255 >= THRESHOLDS[k], mask > 0
        table = [(positive & lesion).sum(), (positive & ~lesion).sum(), (~positive & ~lesion).sum()]
        assert [curve[name][k] for name in ('TP', 'FP', 'TN')] == table
        assert curve['FN'][k] == (~positive & lesion).sum()
        assert curve['precision'][k] == pytest.approx(table[0] / positive.sum())
        assert curve['recall'][k] == pytest.approx(table[0] / lesion.sum())


def test_nothing_marked_is_all_precision_and_no_recall():
    curve = precision_recall([4] + [0] * 255, [1] + [0] * 255)
    assert (curve['precision'][0], curve['recall'][0]) == (0.25, 1)
    assert (curve['precision'][1:] == 1).all()
    assert (curve['recall'][1:] == 0).all()


def finish(logs, levels):
    scores = {'a/hard/Dice': 0.75, 'a/hard/HD95': np.inf, 'a/pranet/Sm': 0.5, 'none/hard/Dice': np.nan}
    logs.write(7, {'loss': 2.0})
    logs.write_image(7, 'a/one', np.full((4, 6, 3), 9, np.uint8))
    empty = [[2] * 256, [0] * 256]
    details = {'a': {'levels': [levels.tolist()]}, 'none': {'levels': [empty, empty]}}
    logs.write_scores(8, Scores({'scores': scores}, [], details))
    logs.close()


def test_tensorboard_gets_scalars_images_curves_and_hyperparameters(tmp_path, levels):
    finish(Logs(tmp_path, config=load_config('quickstart')), levels[-1])
    found = {value.tag: (step, value) for step, value in events(tmp_path)}
    assert (found['loss'][0], found['loss'][1].simple_value) == (7, 2)
    assert (found['a/one'][1].image.height, found['a/one'][1].image.width) == (4, 6)
    assert (found['a/hard/Dice'][0], found['a/hard/Dice'][1].simple_value) == (8, 0.75)
    assert not {'a/hard/HD95', 'none/hard/Dice', 'precision_recall/none/class1'} & found.keys()
    tensor = found['precision_recall/a'][1].tensor
    curve = np.reshape(tensor.float_val, [one.size for one in tensor.tensor_shape.dim])
    np.testing.assert_allclose(curve[RECALL], precision_recall(*levels[-1])['recall'], rtol=1e-6)

    content = found['_hparams_/session_start_info'][1].metadata.plugin_data.content
    keys = HParamsPluginData.FromString(content).session_start_info.hparams
    assert keys['optimizer.peak_lr'].number_value == 0.05
    assert keys['data.sizes'].string_value == '80 96'
    assert not {'data.root', 'log.every', 'data.cache'} & keys.keys()
    content = found['_hparams_/experiment'][1].metadata.plugin_data.content
    named = [one.name.tag for one in HParamsPluginData.FromString(content).experiment.metric_infos]
    assert named == ['a/hard/Dice', 'a/pranet/Sm']


class Wandb(types.ModuleType):
    """Stands for the library: keeps what a run is started with and told."""

    class Error(Exception):
        pass

    def __init__(self, refuses=None):
        super().__init__('wandb')
        self.started, self.logged, self.metrics, self.finished, self.refuses = [], [], [], 0, refuses
        self.summary, self.plot = {}, types.SimpleNamespace(line=lambda table, x, y, title: (table, x, y))

    def init(self, **arguments):
        if self.refuses:
            raise self.Error(self.refuses)
        self.started.append(arguments)
        return self

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, row):
        self.logged.append(row)

    def finish(self):
        self.finished += 1

    def Image(self, pixels):
        return pixels

    def Table(self, data, columns):
        return dict(zip(columns, zip(*data, strict=True), strict=True))


def test_weights_and_biases_gets_the_same_and_goes_on_under_one_id(tmp_path, levels, monkeypatch):
    stub = Wandb()
    monkeypatch.setitem(sys.modules, 'wandb', stub)
    for _ in range(2):
        finish(Logs(tmp_path, tensorboard=False, wandb=True, config=load_config('quickstart')), levels[-1])
    first, second = stub.started
    assert first['id'] == second['id'] == (tmp_path / 'wandb_id.txt').read_text().strip()
    assert first['resume'] == 'allow'
    assert 'mode' not in first  # else WANDB_MODE=offline would be overruled
    assert first['dir'] == str(tmp_path)
    assert first['config']['optimizer.peak_lr'] == 0.05
    assert stub.metrics == [('*', 'step')] * 2
    assert stub.finished == 2
    assert {'step': 7, 'loss': 2.0} in stub.logged
    assert all('step' in row for row in stub.logged)
    picture = next(row['a/one'] for row in stub.logged if 'a/one' in row)
    assert picture.shape == (4, 6, 3)
    table, x, y = next(row['precision_recall/a'] for row in stub.logged if 'precision_recall/a' in row)
    np.testing.assert_allclose(table[x], precision_recall(*levels[-1])['recall'])
    np.testing.assert_allclose(table[y], precision_recall(*levels[-1])['precision'])
    assert stub.summary['a/hard/HD95'] == np.inf
    assert not list(tmp_path.glob('events.*'))


def test_weights_and_biases_that_will_not_start_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', Wandb('no API key\nconfigured'))
    with pytest.raises(InputError, match=r'no API key configured\); log in .* WANDB_MODE=offline'):
        Logs(tmp_path, tensorboard=False, wandb=True)


def test_weights_and_biases_is_off_and_its_absence_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(config_values.importlib.util, 'find_spec', lambda name: None)
    config_values.check_values(load_config('quickstart'))
    with pytest.raises(InputError, match='pip install wandb'):
        config_values.check_values(load_config('quickstart', **{'log.wandb': True}))


def test_weights_and_biases_itself_takes_it_offline(tmp_path, levels, monkeypatch):
    pytest.importorskip('wandb', reason='an optional requirement')
    for key, value in {'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true', 'WANDB_ERROR_REPORTING': 'false'}.items():
        monkeypatch.setenv(key, value)
    finish(Logs(tmp_path, tensorboard=False, wandb=True, config=load_config('quickstart')), levels[-1])
    (path,) = (tmp_path / 'wandb').glob('offline-run-*/*.wandb')
    assert (tmp_path / 'wandb_id.txt').read_text().strip() in path.name
    for _ in range(100):  # its writer is a process of its own
        if b'precision_recall/a' in path.read_bytes():
            return
        time.sleep(0.1)
    raise AssertionError(f'{path} holds no curve')


def test_samples_are_shown_nine_times_in_a_run_or_not_at_all():
    dataset = types.SimpleNamespace(train=['train'], validation=None, tests={})
    samples = Samples(dataset, load_config('quickstart'), None, None, 300)
    assert [step for step in range(301) if samples.are_due(step)] == list(range(30, 300, 30))
    for keys in ({'log.images': 0}, {'log.tensorboard': False}):
        samples = Samples(dataset, load_config('quickstart', **keys), None, None, 10)
        assert not any(samples.are_due(step) for step in range(11))


class Kept:
    """Logs that keep the pictures."""

    def __init__(self):
        self.images = {}

    def write_image(self, step, name, image):
        self.images[name] = (step, image)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_samples_are_the_first_images_of_the_validation_or_training_split(split):
    example = {'image': np.full((36, 40, 3), 90, np.uint8), 'mask': np.full((36, 40), 255, np.uint8)}
    members = [example | {'name': f'{number}'} for number in range(5)]
    dataset = types.SimpleNamespace(**{'train': None, 'validation': None, split: members})
    settings = load_config('quickstart', **{'log.images': 2, 'data.size': 48, 'evaluate.batch': 2})
    logs = Kept()
    samples = Samples(dataset, settings, make_mesh(), logs, 10)
    samples.write(3, lambda images: np.zeros((len(images), 48, 48, 1), np.float32))
    assert list(logs.images) == [f'{split}/0', f'{split}/1']
    step, panels = logs.images[f'{split}/0']
    assert (step, panels.shape) == (3, (36, 4 * 40, 3))
    image, mask, found, errors = np.split(panels, 4, axis=1)
    assert (image == 90).all()
    assert (mask == 255).all()
    assert (found == 0).all()
    assert (errors[..., 0] > errors[..., 2]).all()  # all missed: orange

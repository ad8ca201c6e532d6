"""The command `convert`: PyTorch files to ours and back; nothing is lost, overwritten or half-written."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_files import dict_of, storage, tensor, write_zip

from m2snet_jax import load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.build import check_config, create_model
from m2snet_jax.config import to_json
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.weights import checkpoint, state_dict, trained_config

pytestmark = pytest.mark.usefixtures('compiled_quickly')

SMALL = ('--config=default', '--config.model.encoder=res2net14', '--config.data.size=40')


@pytest.fixture(scope='module')
def arrays():
    """A state dict as PyTorch keeps it: float32 with counters, a classifier and constant filters."""
    draw = np.random.default_rng(0)
    model = state_dict(create_model('m2snet', 'res2net14'))
    arrays = {name: draw.standard_normal(array.shape).astype(np.float32) for name, array in model.items()}
    arrays['resnet.fc.weight'], arrays['resnet.fc.bias'] = np.ones((1000, 2048), 'f4'), np.ones(1000, 'f4')
    for size in (3, 5):
        arrays |= {f'conv_{size}.weight': np.ones((64, 64, size, size)), f'conv_{size}.bias': np.zeros(64)}
        arrays[f'conv_{size}.norm.num_batches_tracked'] = np.array(7)
    return arrays


@pytest.fixture(scope='module')
def source(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp('source') / 'source.safetensors'
    save_file({f'module.{name}': array for name, array in arrays.items()}, path)
    return path


def convert(*arguments):
    return main(['m2snet_jax', 'convert', *map(str, arguments)])


def kept(arrays):
    ours = state_dict(create_model('m2snet', 'res2net14')).keys()
    return {name: array for name, array in arrays.items() if name in ours}


def test_from_a_file_to_ours_and_back(source, arrays, tmp_path, capsys):
    ours, back = tmp_path / 'ours', tmp_path / 'back.safetensors'
    assert convert(source, ours, *SMALL) == 0
    first = capsys.readouterr().out
    assert convert(ours, back) == 0
    second = capsys.readouterr().out
    written, expected = load_file(back), kept(arrays)
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['back.safetensors', 'ours']

    dropped = [line for line in first.splitlines() if line.startswith('dropped:')]
    assert len(dropped) == 1
    for name in ('resnet.fc.weight', 'resnet.fc.bias', 'conv_3.weight', 'conv_5.bias', '2 × num_batches_tracked'):
        assert name in dropped[0]
    assert 'rounded' not in first
    assert '| x5_x4_x3_x2_x1.0.weight ' in first
    total = sum(array.size for array in expected.values())
    assert f'Total: {total:,} ' in first
    hashes = {text.split()[-1] for text in (first, second)}
    predictor = load_model(ours)
    assert hashes == {predictor.model_hash}
    config = load_config('default', **{'model.encoder': 'res2net14', 'data.size': 40})
    assert load_model(back, config=config).model_hash == predictor.model_hash
    assert (predictor.size, predictor.classes) == (40, 1)
    check_config(predictor.config)


@pytest.mark.slow
def test_from_a_file_to_a_file_with_the_classifier(source, arrays, tmp_path, capsys):
    assert convert(source, tmp_path / 'a.safetensors', *SMALL, '--classifier') == 0
    written = load_file(tmp_path / 'a.safetensors')
    np.testing.assert_array_equal(written['resnet.fc.weight'], arrays['resnet.fc.weight'])
    dropped = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('dropped:'))
    assert 'resnet.fc' not in dropped
    assert convert(source, tmp_path / 'ours', *SMALL) == 0
    assert convert(tmp_path / 'ours', tmp_path / 'b.safetensors', '--classifier') == 0
    written = load_file(tmp_path / 'b.safetensors')
    assert not written['resnet.fc.weight'].any()
    assert (written['resnet.fc.weight'].shape, written['resnet.fc.bias'].shape) == ((1000, 2048), (1000,))


def test_what_a_file_holds_beside_its_tensors_is_said_once(arrays, tmp_path, caplog):
    items, storages = {}, {}
    for name, array in kept(arrays).items():
        strides = [stride // 4 for stride in array.strides]
        items[name] = tensor(storage('FloatStorage', name, array.size), 0, array.shape, strides)
        storages[name] = array.tobytes()
    extra = b'cargparse\nNamespace\n)\x81'
    write_zip(tmp_path / 'file.pth', dict_of({'arguments': extra, 'state_dict': dict_of(items)}), storages)
    assert convert(tmp_path / 'file.pth', tmp_path / 'file.safetensors', *SMALL) == 0
    assert caplog.text.count('left out unread') == 1


@pytest.mark.slow
def test_one_checkpoint_of_many(tmp_path):
    models = [create_model('msnet', 'res2net14', seed=seed) for seed in (1, 2)]
    checkpoints = checkpoint.Checkpoints(tmp_path / 'run' / 'checkpoints')
    for step, model in enumerate(models, start=5):
        checkpoints.save_model(step, split_model(model)[1])
    checkpoints.close()
    config = {'config': {'model': {'name': 'msnet', 'encoder': 'res2net14'}, 'data': {'classes': 1, 'size': 64}}}
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    for folder, model in (('run', models[1]), ('run/checkpoints', models[1]), ('run/checkpoints/5', models[0])):
        target = tmp_path / f'{folder.replace("/", "-")}.safetensors'
        assert convert(tmp_path / folder, target) == 0
        written = load_file(target)
        for name, array in state_dict(model).items():
            np.testing.assert_array_equal(written[name], array)


def test_what_cannot_be_kept_exactly_is_named(source, arrays, tmp_path, capsys):
    narrow = kept(arrays) | {'level1.0.bias': arrays['level1.0.bias'].astype('f2')}
    wide = narrow | {'level2.0.bias': np.full(64, 0.1), 'level3.0.bias': np.full(64, 0.5)}
    save_file(wide, tmp_path / 'wide.safetensors')
    assert convert(tmp_path / 'wide.safetensors', tmp_path / 'ours', *SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'dropped: nothing' in lines
    assert 'rounded to float32: level2.0.bias' in lines


REFUSED = {
    'exists': (['{source}', '{source}'], 'exists already'),
    'exists as a folder': (['{source}', '{folder}'], 'exists already'),
    'a program': (['{source}', '{folder}/a.pth'], 'a program; name NAME.safetensors or a folder'),
    'no folder': (['{source}', '{folder}/b/a.safetensors'], 'there is no folder'),
    'one word': (['{source}'], '1 arguments were given'),
    'no source': (['{folder}/absent.pth', '{folder}/a'], 'absent.pth: no such file'),
    'no run': (['{folder}', '{folder}/a'], 'holds no run'),
    'other model': (['{source}', '{folder}/a', '--config.model.name=msnet'], 'source.safetensors: the weights do not'),
    'unknown model': (['{source}', '{folder}/a', '--config.model.name=net'], '--config.model.name=net: must be one of'),
    'classifier': (['{source}', '{folder}/a', '--classifier'], 'only a .safetensors file can hold it'),
    'config of a run': (['{folder}', '{folder}/a', '--config=kvasir'], 'contains its own config'),
    'broken': (['{folder}/broken.pth', '{folder}/a'], 'broken.pth: '),
}


@pytest.mark.parametrize('reason', REFUSED)
def test_refusals_are_one_line_and_leave_nothing(reason, source, tmp_path, capsys):
    (tmp_path / 'broken.pth').write_bytes(struct.pack('<Q', 10**15))
    arguments, message = REFUSED[reason]
    before, bytes_before = sorted(tmp_path.rglob('*')), source.read_bytes()
    words = [word.format(source=source, folder=tmp_path) for word in arguments]
    assert convert(*words, *([] if '--config=kvasir' in words or reason == 'no run' else SMALL)) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob('*')) == before
    assert source.read_bytes() == bytes_before
    assert [path.name for path in source.parent.iterdir()] == [source.name]


@pytest.mark.parametrize('target', ['a', 'a.safetensors'])
def test_a_failure_while_writing_leaves_nothing(target, source, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **keywords):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checkpoint.Checkpoints, 'save_model', fail)
    monkeypatch.setattr('pathlib.Path.write_bytes', fail)
    assert convert(source, tmp_path / target, *SMALL) == 2
    named = target if target.endswith('.safetensors') else f'{target}/config.json'
    assert f'{named}: cannot be written (No space left on device)' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_converted_model_is_no_run_to_go_on_with(source, tmp_path):
    """Its recorded hash of the data fits no data, so that `train` refuses the folder."""
    assert convert(source, tmp_path / 'ours', *SMALL) == 0
    recorded = json.loads((tmp_path / 'ours' / 'config.json').read_text())
    assert recorded['manifest_hash'] is None
    assert recorded['lossnet_hash'] is None
    assert recorded['converted_from'] == str(source)


@pytest.mark.slow
def test_how_a_model_was_trained_is_known_of_a_run_alone(source, tmp_path):
    run, model = tmp_path / 'run', create_model('msnet', 'res2net14')
    config = load_config('quickstart', **{'model.name': 'msnet', 'model.encoder': 'res2net14'})
    checkpoints = checkpoint.Checkpoints(run / 'checkpoints')
    checkpoints.save_model(1, split_model(model)[1])
    checkpoints.close()
    (run / 'config.json').write_text(json.dumps({'config': to_json(config)}))
    assert convert(run, tmp_path / 'copy') == 0
    assert convert(run, tmp_path / 'file.safetensors') == 0
    assert convert(source, tmp_path / 'ours', *SMALL) == 0
    assert convert(tmp_path / 'ours', tmp_path / 'again') == 0
    assert trained_config(run) == trained_config(tmp_path / 'copy') == to_json(config)
    for name in ('file.safetensors', 'ours', 'again'):
        assert trained_config(tmp_path / name) is None


@pytest.mark.parametrize('kind', ['m2snet', 'msnet'])
def test_the_file_loads_into_torch_by_names_and_shapes(kind, tmp_path):
    torch = pytest.importorskip('torch')
    load = pytest.importorskip('safetensors.torch').load_file
    arrays = state_dict(create_model(kind, 'res2net14'))
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / 'in.safetensors')
    arguments = [tmp_path / 'in.safetensors', tmp_path / 'out.safetensors', *SMALL, f'--config.model.name={kind}']
    assert convert(*arguments, '--classifier') == 0
    module = torch_module(torch, kind)
    loaded = load(tmp_path / 'out.safetensors')
    module.load_state_dict(loaded, strict=True)
    for name, value in module.state_dict().items():
        if not name.endswith('num_batches_tracked') and not name.startswith('resnet.fc.'):
            np.testing.assert_array_equal(value.numpy(), arrays[name], err_msg=name, strict=True)


def torch_module(torch, kind):
    """A PyTorch module with the layers of the released program's class, under its names."""
    nn = torch.nn

    def block(before, planes, first):
        width, out = planes * 26 // 64, nn.Module()
        out.conv1, out.bn1 = nn.Conv2d(before, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        out.convs = nn.ModuleList([nn.Conv2d(width, width, 3, bias=False) for _ in range(3)])
        out.bns = nn.ModuleList([nn.BatchNorm2d(width) for _ in range(3)])
        out.conv3, out.bn3 = nn.Conv2d(4 * width, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        if first:
            conv, norm = nn.Conv2d(before, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
            out.downsample = nn.Sequential(nn.AvgPool2d(2), conv, norm)
        return out

    def projection(channels):
        return nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())

    module, resnet = nn.Module(), nn.Module()
    stem = [nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    stem += [nn.Conv2d(32, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, bias=False)]
    resnet.conv1, resnet.bn1, resnet.fc = nn.Sequential(*stem), nn.BatchNorm2d(64), nn.Linear(2048, 1000)
    for stage, before in enumerate((64, 256, 512, 1024), start=1):
        setattr(resnet, f'layer{stage}', nn.Sequential(block(before, 32 * 2**stage, True)))
    module.resnet = resnet
    inputs = {'x2_dem_1': 256, 'x3_dem_1': 512, 'x4_dem_1': 1024, 'x5_dem_1': 2048, 'x5_dem_4': 64, 'x5_dem_5': 2048}
    inputs |= dict.fromkeys(['level1', 'level2', 'level3', 'output2', 'output3', 'output4'], 64)
    levels = ['x5', 'x4', 'x3', 'x2', 'x1']
    inputs |= {'_'.join(levels[i:j]): 64 for j in range(2, 6) for i in range(j - 1)}
    for name, channels in inputs.items():
        setattr(module, name, projection(channels))
    module.output1 = nn.Sequential(nn.Conv2d(64, 1, 3, padding=1))
    if kind == 'm2snet':
        for size in (3, 5):
            part = nn.Module()
            part.norm = nn.BatchNorm2d(64)
            setattr(module, f'conv_{size}', part)
    return module

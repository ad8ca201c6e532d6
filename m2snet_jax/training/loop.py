"""The story of a run, top to bottom: check, start or resume, train, save, evaluate."""

import contextlib
import functools
import hashlib
import json
import math
import os
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax import mesh as devices
from m2snet_jax.config import changed_keys, check_config, to_json
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.manifest import to_csv
from m2snet_jax.data.pipeline import image_size, steps_per_epoch, train_batches
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation import evaluate, read_summary, write_summary
from m2snet_jax.evaluation.sheet import versions
from m2snet_jax.model.lossnet import LossNet
from m2snet_jax.predictor import create_model, make_predict_step
from m2snet_jax.report import write_report
from m2snet_jax.training.logs import Logs, Progress, say
from m2snet_jax.training.optimizer import sgd, triangle
from m2snet_jax.training.recalibration import recalibrate
from m2snet_jax.training.step import create_train_state, make_train_step
from m2snet_jax.weights import load_weights, names
from m2snet_jax.weights.checkpoint import Checkpoints
from m2snet_jax.weights.pretrained import fetch_weights, weight_warnings

LOSSNET_SEED = 224  # apart from the run's: every run of a config sees the same random LossNet


def train_and_evaluate(config, workdir):
    """Trains a model from a config, resuming where `workdir` stands, and scores it on the test sets.

    Args:
        config: as `load_config` returns it.
        workdir: the run's folder, its only state: the same call again goes on from the last checkpoint, and returns
            the scores at once when the run is finished.

    Returns:
        {'<set>/<protocol>/<name>': figure}, fractions.

    Raises:
        InputError: something given cannot be used; nothing has been written then.
        FloatingPointError: a loss is NaN or infinite; the message names the step. Checkpoints hold good steps only.
        SystemExit: the process was asked to end (SIGTERM); the last step is saved.
    """
    check_config(config)
    mesh = devices.make_mesh()
    devices.check_batch(config.batch, mesh)
    workdir = Path(workdir)
    _check_writable(workdir)
    dataset = open_dataset(config)
    fetch_weights(config)
    model, lossnet = build_model(config), build_lossnet(config)
    about = _about(config, dataset, lossnet)
    _check_same_run(config, about, workdir)

    warnings = weight_warnings(config)
    for warning in warnings:
        say(f'warning: {warning}')
    _write_about(about, dataset, workdir)
    epoch_steps = steps_per_epoch(dataset.train, config)
    total = config.steps or config.epochs * epoch_steps
    checkpoints = Checkpoints(workdir / 'checkpoints', config.checkpoint.keep)
    try:
        if checkpoints.latest_step() == total and _is_scored(workdir, total):
            say(f'{workdir}: this run is finished ({total} steps); nothing to do')
            return read_summary(workdir)
        optimizer = build_optimizer(config, total, epoch_steps)
        graph, state = create_train_state(model, optimizer)
        state = devices.replicate(state, mesh)
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state)
            say(f'{workdir}: going on after step {int(state.step)} of {total}')
        logs = Logs(workdir, int(state.step), tensorboard=config.log.tensorboard)
        with contextlib.closing(logs):
            state = _train(config, dataset, mesh, (graph, state), optimizer, lossnet, checkpoints, logs, total)
            say('predicting and scoring the test sets')
            predict = functools.partial(make_predict_step(graph), state.params, state.batch_stats)
            scores, overlays = evaluate(predict, dataset, config, mesh, workdir, warnings)
            for name, image in overlays.items():
                logs.write_image(total, f'overlay/{name}', image)
    finally:
        checkpoints.close()
    model_hash = names.model_hash(nnx.merge(graph, state.params, state.batch_stats))
    write_summary(workdir, scores, {'step': total, 'model_hash': model_hash, **about})
    write_report(workdir)
    return scores


def _train(config, dataset, mesh, model, optimizer, lossnet, checkpoints, logs, total):
    """Runs the steps that are left and returns the final state; it is in the checkpoints too."""
    graph, state = model
    lossnet_graph, lossnet_params = (None, None) if lossnet is None else nnx.split(lossnet)
    lossnet_params = devices.replicate(lossnet_params, mesh)
    train_step = make_train_step(
        graph,
        optimizer,
        lossnet_graph,
        bce=config.loss.bce,
        lossnet_weight=config.loss.lossnet,
        fix_filters_at=None if config.model.fix_filters == 1 else math.ceil(config.model.fix_filters * total),
    )
    start = int(state.step)
    batches = train_batches(
        dataset.train,
        config,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    progress = Progress(logs, config.batch, total, steps_per_epoch(dataset.train, config))
    with contextlib.closing(batches), _termination() as terminated:
        for step in range(start, total):
            with progress.waiting():
                batch = devices.shard(next(batches), mesh)
            size = image_size(config, step)
            with progress.dispatching(size):
                state, losses = train_step(state, lossnet_params, batch, size)
            progress.add(step + 1, losses)
            last = step + 1 == total or terminated.is_set()
            if step + 1 == total and config.recalibrate:
                following = [devices.shard(next(batches), mesh)['image'] for _ in range(config.recalibrate)]
                state = state.replace(batch_stats=recalibrate(graph, state.params, state.batch_stats, following))
            if (step + 1) % config.log.every == 0 or last:
                progress.report()
            if (step + 1) % config.checkpoint.every == 0 or last:
                progress.check()
                checkpoints.save(step + 1, state)
            if terminated.is_set() and step + 1 < total:
                checkpoints.close()
                say(f'asked to end: step {step + 1} of {total} is saved; the same command goes on from there')
                raise SystemExit(128 + signal.SIGTERM)
    return state


def build_model(config):
    """Returns the model that a config names, in training mode, with its initial weights."""
    model = create_model(config.model.name, config.model.encoder, config.data.classes, config.dtype, config.seed)
    if config.model.encoder_weights is not None and config.model.weights is None:
        load_weights(model.encoder, config.model.encoder_weights)
    if config.model.weights is not None:
        load_weights(model, config.model.weights)
    return model


def build_lossnet(config):
    """Returns the LossNet of a config, None where its weight is 0."""
    if not config.loss.lossnet:
        return None
    lossnet = LossNet(size=config.loss.lossnet_size, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(LOSSNET_SEED))
    if config.loss.lossnet_weights is not None:
        load_weights(lossnet, config.loss.lossnet_weights)
    return lossnet


def build_optimizer(config, total, epoch_steps):
    """Returns the optimizer of a config for a run of `total` steps."""
    return sgd(
        triangle(config.optimizer.peak, math.ceil(total / epoch_steps), epoch_steps),
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        encoder_factor=config.optimizer.encoder_factor,
        freeze_stem=config.optimizer.freeze_stem,
    )


def _about(config, dataset, lossnet):
    """What identifies a run: the resolved config, the hashes of its data and of LossNet, the versions."""
    return {
        'config': to_json(config),
        'manifest_hash': dataset.manifest_hash,
        'lossnet_hash': None if lossnet is None else _hash(nnx.state(lossnet)),
        'versions': versions(),
    }


def _hash(tree):
    """SHA-256 over the bytes of all arrays of a tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _is_scored(workdir, total):
    """Whether the score sheet of a run of `total` steps is complete."""
    path = workdir / 'scores' / 'summary.json'
    return path.exists() and json.loads(path.read_text()).get('step') == total


def _check_writable(workdir):
    """Raises InputError if the folder cannot be made or written."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f'--workdir={workdir}: {existing} is a file; name a folder')
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f'--workdir={workdir}: {existing} cannot be written; name another folder')


def _check_same_run(config, about, workdir):
    """Raises InputError if the folder holds a run whose result another config, or other data, would have given."""
    path = workdir / 'config.json'
    if not path.exists():
        return
    recorded = json.loads(path.read_text())
    changes = [f'{key} {before} → {now}' for key, before, now in changed_keys(config, recorded['config'])]
    if recorded['manifest_hash'] != about['manifest_hash']:
        changes.append('the data (manifest hash)')
    if recorded['lossnet_hash'] != about['lossnet_hash'] and not changes:
        changes.append('the weights of LossNet')
    if changes:
        free = next(path for n in range(2, 10**6) if not (path := workdir.with_name(f'{workdir.name}-{n}')).exists())
        raise InputError(
            f'--workdir={workdir}: holds a run of another config, changed: {", ".join(changes)}; '
            f'give the same config to go on, or start a new run with --workdir={free}'
        )


def _write_about(about, dataset, workdir):
    """Makes the run's folder with `config.json` and `manifest.csv`; a resumed run leaves them as they are."""
    if (workdir / 'config.json').exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--workdir={workdir}: cannot be made ({error.strerror}); name another folder') from None
    for name, text in (('manifest.csv', to_csv(dataset.manifest)), ('config.json', json.dumps(about, indent=1) + '\n')):
        temporary = workdir / f'.{name}'
        temporary.write_text(text)
        os.replace(temporary, workdir / name)


@contextlib.contextmanager
def _termination():
    """Yields an event that SIGTERM sets, so that the step under way can end and be saved."""
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)

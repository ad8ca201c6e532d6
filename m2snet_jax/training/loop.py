"""The story of a run, top to bottom: check, start or resume, train, save, evaluate."""

import contextlib
import functools
import hashlib
import math
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax import hosts
from m2snet_jax import mesh as devices
from m2snet_jax.config import check_config, to_json
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.pipeline import image_size, steps_per_epoch, train_batches
from m2snet_jax.evaluation import evaluate, read_summary, write_summary
from m2snet_jax.evaluation.sheet import read_sheet, versions
from m2snet_jax.model.lossnet import LossNet
from m2snet_jax.predictor import create_model, make_predict_step
from m2snet_jax.report import write_card, write_report
from m2snet_jax.training.logs import Logs, Progress, say
from m2snet_jax.training.optimizer import sgd, triangle
from m2snet_jax.training.recalibration import recalibrate
from m2snet_jax.training.run_folder import check_same_run, check_writable, is_scored, write_about
from m2snet_jax.training.samples import Samples
from m2snet_jax.training.step import create_train_state, make_train_step
from m2snet_jax.training.validation import make_validate, watched_split
from m2snet_jax.weights import load_weights, names
from m2snet_jax.weights.checkpoint import Checkpoints
from m2snet_jax.weights.pretrained import fetch_weights, weight_warnings

LOSSNET_SEED = 224  # apart from the run's: every run of a config sees the same random LossNet
PUBLISHED_BATCH = 16  # for which the rate of both papers was chosen


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
    devices.check_batch(config.batch, config.accumulate, mesh)
    workdir = Path(workdir)
    check_writable(workdir)
    dataset = open_dataset(config)
    fetch_weights(config)
    model, lossnet = build_model(config), build_lossnet(config)
    about = _about(config, dataset, lossnet)
    check_same_run(config, about, workdir)

    warnings = weight_warnings(config)
    if hosts.is_first():
        write_about(about, dataset.manifest, workdir)
    epoch_steps = steps_per_epoch(dataset.train, config)
    total = config.steps or config.epochs * epoch_steps
    checkpoints = Checkpoints(workdir / 'checkpoints', config.checkpoint.keep, choose=config.select != 'last')
    try:
        if checkpoints.latest_step() == total and is_scored(workdir, total):
            say(f'{workdir}: this run is finished ({total} steps); nothing to do')
            return read_summary(workdir)
        for line in (*_announcements(config, dataset, mesh), *(f'warning: {warning}' for warning in warnings)):
            say(line)
        optimizer = build_optimizer(config, total, epoch_steps)
        graph, state = create_train_state(model, optimizer, average=config.ema is not None, mesh=mesh)
        state = devices.replicate(state, mesh)
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state)
            say(f'{workdir}: going on after step {int(state.step)} of {total}')
        to = {'tensorboard': config.log.tensorboard, 'wandb': config.log.wandb}
        logs = Logs(workdir, int(state.step), **to, config=config)
        with contextlib.closing(logs):
            state = _train(config, dataset, mesh, (graph, state), optimizer, lossnet, checkpoints, logs, total)
            step, (params, batch_stats) = total, state.evaluated
            if config.select != 'last':
                step = checkpoints.chosen_step()
                params, batch_stats = checkpoints.restore_evaluated(step, state)
                say(f'step {step} had the highest Dice ({config.select}); it is the one that is scored')
            say('predicting and scoring the test sets')
            predict = functools.partial(make_predict_step(graph), params, batch_stats)
            scores, panels = evaluate(predict, dataset, config, mesh, workdir, warnings)
            for name, image in panels.items():
                logs.write_image(total, name, image)
            logs.write_scores(total, scores, read_sheet(workdir, 'details.json'))
    finally:
        checkpoints.close()
    if hosts.is_first():
        model_hash = names.model_hash(nnx.merge(graph, params, batch_stats))
        write_summary(workdir, scores, {'step': total, 'scored_step': step, 'model_hash': model_hash, **about})
        write_report(workdir)
        write_card(workdir)
    return scores


def _train(config, dataset, mesh, model, optimizer, lossnet, checkpoints, logs, total):
    """Runs the steps that are left and returns the final state; it is in the checkpoints too."""
    graph, state = model
    lossnet_graph, lossnet_params = (None, None) if lossnet is None else nnx.split(lossnet)
    lossnet_params = devices.replicate(lossnet_params, mesh)
    train_step = build_train_step(config, total, graph, optimizer, lossnet_graph)
    watched, sources = watched_split(config, dataset)
    validate = make_validate(graph, sources, config, mesh)
    samples, predict_step = Samples(dataset, config, mesh, logs, total), make_predict_step(graph)
    first, epoch_steps = int(state.step), steps_per_epoch(dataset.train, config)
    processes = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    batches = train_batches(dataset.train, config, start_step=first, **processes)
    progress = Progress(logs, config.batch, total, epoch_steps)
    with contextlib.closing(batches), hosts.termination() as asked_to_end:
        for step in range(first + 1, total + 1):
            with progress.waiting():
                batch = devices.shard(next(batches), mesh)
            size = image_size(config, step - 1)
            with progress.dispatching(size):
                state, losses = train_step(state, lossnet_params, batch, size)
            progress.add(step, losses)
            asked, dice = asked_to_end(step), None
            last, epoch_ends = step == total or asked, step == total or step % epoch_steps == 0
            if step == total and config.recalibrate:
                following = [devices.shard(next(batches), mesh)['image'] for _ in range(config.recalibrate)]
                state = state.with_statistics(recalibrate(graph, *state.evaluated, following))
            if step % config.log.every == 0 or last:
                progress.report()
            if epoch_ends and sources:
                with progress.apart():
                    dice = validate(*state.evaluated)
                line = f'epoch {math.ceil(step / epoch_steps)}: {watched} Dice {dice:.4f} at {config.data.size} pixels'
                logs.write(step, {f'{watched}/Dice': dice}, line)
            if samples.are_due(step):
                with progress.apart():
                    samples.write(step, functools.partial(predict_step, *state.evaluated))
            if step % config.checkpoint.every == 0 or last or (epoch_ends and config.select != 'last'):
                progress.check()
                checkpoints.save(step, state, dice)
            if asked and step < total:
                checkpoints.close()
                say(f'asked to end: step {step} of {total} is saved; the same command goes on from there')
                raise SystemExit(128 + signal.SIGTERM)
    return state


def build_model(config):
    """Returns the model that a config names, in training mode, with its initial weights."""
    model = create_model(config.model.name, config.model.encoder, config.data.classes, config.dtype, config.seed)
    model.encoder.remat = config.remat
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
    peak = config.optimizer.peak
    if config.optimizer.scale_rate_with_batch:
        peak *= config.batch / PUBLISHED_BATCH
    return sgd(
        triangle(peak, math.ceil(total / epoch_steps), epoch_steps),
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        encoder_factor=config.optimizer.encoder_factor,
        freeze_stem=config.optimizer.freeze_stem,
    )


def build_train_step(config, total, graph, optimizer, lossnet_graph):
    """Returns the training step of a config for a run of `total` steps, as `make_train_step` does."""
    fix_filters = config.model.fix_filters
    return make_train_step(
        graph,
        optimizer,
        lossnet_graph,
        bce=config.loss.bce,
        lossnet_weight=config.loss.lossnet,
        fix_filters_at=None if fix_filters == 1 else math.ceil(fix_filters * total),
        accumulate=config.accumulate,
        ema=config.ema,
    )


def _announcements(config, dataset, mesh):
    """Yields what a user should know before the first step, a line each."""
    yield f'training on {devices.describe(mesh)}'
    if dataset.validation is None:
        yield 'no validation split (data.validation): how good the model is shows in the test scores at the end'
    if config.accumulate > 1:
        part = config.batch // config.accumulate
        yield f'{config.batch} images a step in {config.accumulate} parts: batch norm sees {part} images at a time'
    if config.optimizer.scale_rate_with_batch:
        yield f'rates × {config.batch / PUBLISHED_BATCH:g} for {config.batch} images a step (scale_rate_with_batch)'
    if config.ema is not None:
        yield f'evaluated with weights averaged over the steps (ema={config.ema:g})'


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

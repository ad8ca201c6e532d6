"""A run from start to end: check, start or resume, train, save, evaluate."""

import contextlib
import functools
import hashlib
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from flax import nnx

from m2snet_jax.build import build_lossnet, build_model, check_config
from m2snet_jax.config import to_json
from m2snet_jax.config_values import profiled_steps
from m2snet_jax.data.datasets import Dataset, open_dataset
from m2snet_jax.data.pipeline import image_size, steps_per_epoch, train_batches
from m2snet_jax.devices import processes
from m2snet_jax.devices.mesh import Mesh, check_batch, describe, make_mesh, replicate, shard
from m2snet_jax.evaluation.sheets import read_summary, scored_step, write_sheets
from m2snet_jax.evaluation.test_sets import evaluate
from m2snet_jax.models.lossnet import LossNet
from m2snet_jax.models.model_weights import ModelWeights
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.prediction.predictor import Predictor
from m2snet_jax.report import write_card, write_report
from m2snet_jax.storage import local_path, versions
from m2snet_jax.training.compiled_steps import CompiledSteps, run_length
from m2snet_jax.training.logs import Logs, Progress, log
from m2snet_jax.training.optimizer import PUBLISHED_BATCH, build_optimizer
from m2snet_jax.training.precise_batch_norm import precise_batch_stats
from m2snet_jax.training.profile import Profile, check_profile
from m2snet_jax.training.run_folder import check_same_run, check_writable, only_writer, write_about
from m2snet_jax.training.samples import Samples
from m2snet_jax.training.step import TrainState, create_train_state
from m2snet_jax.training.validation import make_validate, watched_split
from m2snet_jax.weights.checkpoint import Checkpoints
from m2snet_jax.weights.pretrained import fetch_weights, weight_warnings


def train_and_evaluate(config: Any, workdir: str | Path) -> dict[str, float]:
    """Trains a model from a config, resuming from the last checkpoint, and scores it on the test sets.

    Args:
        config: as `load_config` returns it.
        workdir: the run's folder, its only state. For a finished run the scores are returned at once.

    Returns:
        {'<set>/<protocol>/<name>': figure}, fractions.

    Raises:
        InputError: the config, the data, the weights or the folder cannot be used, and nothing has been written; or the
            disk is full.
        FloatingPointError: a loss is NaN or infinite; the message names the step. Checkpoints hold earlier steps only.
        SystemExit: the process got SIGTERM, or SIGINT from Ctrl-C; the last step is saved.
    """
    with CompiledSteps() as steps:
        return _train_and_evaluate(config, workdir, steps)


def _train_and_evaluate(config, workdir, steps) -> dict[str, float]:
    """Does what `train_and_evaluate` says; `steps` are compiled while the images are prepared."""
    check_config(config)
    mesh = make_mesh()
    check_batch(config.batch, config.gradient_accumulation, mesh)
    workdir = local_path(workdir, '--workdir', written=True)
    check_writable(workdir)

    @functools.cache
    def start(count):
        """Makes the initial state, then begins to compile: on a CPU small programs would wait for the large ones."""
        check_profile(profiled_steps(config.log.profile), run_length(count, config)[0])
        fetch_weights(config)
        model, lossnet = build_model(config), build_lossnet(config)
        optimizer = build_optimizer(config, *run_length(count, config))
        graph, state = create_train_state(model, optimizer, ema=config.ema is not None, mesh=mesh)
        steps.start(config, mesh, workdir, count)
        return model, lossnet, (graph, replicate(state, mesh))

    dataset = open_dataset(config, start)
    model, lossnet, initial = start(len(dataset.train))
    about = _about(config, dataset, lossnet)
    check_same_run(config, about, workdir)
    with only_writer(workdir):
        return _run(config, mesh, dataset, model, lossnet, initial, about, workdir, steps)


def _run(config, mesh, dataset, model, lossnet, initial, about, workdir, steps) -> dict[str, float]:
    """Trains and scores what was checked, in a folder that no other process writes; returns the scores."""
    total, _ = run_length(len(dataset.train), config)
    graph, state = initial
    warnings = weight_warnings(config)
    if processes.is_primary():
        write_about(about, dataset.manifest, workdir)
    checkpoints = Checkpoints(workdir / 'checkpoints', config.checkpoint.keep, choose=config.select != 'last')
    try:
        if checkpoints.latest_step() == total == scored_step(workdir):
            log(f'{workdir}: this run is finished ({total} steps); nothing to do')
            return read_summary(workdir)['scores']
        for line in (*_announcements(config, dataset, mesh), *(f'warning: {warning}' for warning in warnings)):
            log(line)
        if checkpoints.latest_step() is not None:
            restored = checkpoints.restore(state)
            jax.tree.map(lambda array: array.delete(), state)  # the caller still refers to it: it would stay in memory
            state = restored
            log(f'{workdir}: going on after step {int(state.step)} of {total}')
        to = {'tensorboard': config.log.tensorboard, 'wandb': config.log.wandb}
        logs = Logs(workdir, int(state.step), **to, config=config)
        with contextlib.closing(logs):
            state = _train(config, dataset, mesh, (graph, state), steps, lossnet, checkpoints, logs, total, workdir)
            step, weights = total, state.eval_weights
            if config.select != 'last':
                step = checkpoints.chosen_step()
                weights = checkpoints.restore_eval_weights(step, state)
                log(f'step {step} had the highest Dice ({config.select}) and is the one that is scored')
            log('predicting and scoring the test sets')
            predictor = _predictor(config, model, weights)
            scores, panels = evaluate(predictor, dataset, config, mesh, workdir, warnings)
            scores = scores.with_summary(step=total, scored_step=step, model_hash=predictor.model_hash, **about)
            for name, image in panels.items():
                logs.write_image(total, name, image)
            logs.write_scores(total, scores)
    finally:
        checkpoints.close()
    if processes.is_primary():
        write_report(scores, workdir)
        write_card(scores, workdir)
        write_sheets(scores, workdir)  # last: a run with a sheet is finished
    return scores.figures


def _train(config, dataset, mesh, model, steps, lossnet, checkpoints, logs, total, workdir) -> TrainState:
    """Runs the steps that are left and returns the final state, which is also the last checkpoint."""
    graph, state = model
    lossnet_params = replicate(None if lossnet is None else nnx.split(lossnet)[1], mesh)
    watched, sources = watched_split(config, dataset)
    validate = make_validate(graph, sources, config, mesh)
    samples, predict_step = Samples(dataset, config, mesh, logs, total), make_predict_step(graph)
    first, epoch_steps = int(state.step), steps_per_epoch(dataset.train, config)
    share = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    batches = train_batches(dataset.train, config, start_step=first, **share)
    progress = Progress(logs, config.batch, total, epoch_steps)
    profile = Profile(profiled_steps(config.log.profile), workdir, first)
    with contextlib.closing(batches), profile, processes.termination() as asked_to_end:
        for step in range(first + 1, total + 1):
            profile.begin(step, state)
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
                with progress.waiting():
                    batch = shard(next(batches), mesh)
                size = image_size(config, step - 1)
                with progress.compiling(size):
                    train_step = steps(size, functools.partial(_is_asked_alone, asked_to_end, step))
                if train_step is None:
                    if step - 1 > first:
                        progress.check()
                        checkpoints.save(step - 1, state)  # does nothing if it is saved
                    _end_early(asked_to_end(step), step - 1, total, checkpoints)
                state, losses = train_step(state, lossnet_params, batch)
            profile.end(step, losses)
            progress.add(step, losses)
            asked, dice = asked_to_end(step), None
            last, epoch_ends = step == total or asked is not None, step == total or step % epoch_steps == 0
            if step == total and config.precise_batch_norm:
                following = [shard(next(batches), mesh)['image'] for _ in range(config.precise_batch_norm)]
                state = state.with_statistics(precise_batch_stats(graph, state.eval_weights, following))
            if step % config.log.every == 0 or last:
                progress.report()
            if epoch_ends and sources:
                with progress.apart():
                    dice = validate(state.eval_weights)
                line = f'epoch {math.ceil(step / epoch_steps)}: {watched} Dice {dice:.4f} at {config.data.size} pixels'
                logs.write(step, {f'{watched}/Dice': dice}, line)
            if samples.are_due(step):
                with progress.apart():
                    samples.write(step, functools.partial(predict_step, state.eval_weights))
            if step % config.checkpoint.every == 0 or last or (epoch_ends and config.select != 'last'):
                progress.check()
                checkpoints.save(step, state, dice)
            if asked is not None and step < total:
                _end_early(asked, step, total, checkpoints)
    return state


def _is_asked_alone(asked_to_end, step):
    """Whether the run is to end before a step. Several processes cannot agree on that: they end after a step."""
    return jax.process_count() == 1 and asked_to_end(step) is not None


def _end_early(received, step, total, checkpoints) -> NoReturn:
    """Ends the run after a step that is saved, or before the first one, because a process received a signal."""
    checkpoints.close()
    saved = f'step {step} of {total} is saved' if step else 'no step was made'
    log(f'{signal.Signals(received).name} received: {saved}; the same command goes on from there')
    raise SystemExit(128 + received)


def _predictor(config: Any, model: Any, weights: ModelWeights) -> Predictor:
    """Returns the Predictor of trained weights, equal to `load_model` of the run's folder; `model` is changed."""
    model.set_attributes(dtype=jax.numpy.float32, remat=False)
    weights = jax.tree.map(np.asarray, weights)  # every process holds all of them
    nnx.update(model, weights.params, weights.batch_stats)
    return Predictor(model, config.data.size, config)


def _announcements(config: Any, dataset: Dataset, mesh: Mesh) -> Iterator[str]:
    """Yields the lines that are logged before the first step."""
    yield f'training on {describe(mesh)}'
    if dataset.validation is None:
        yield 'no validation split (data.validation): the model is scored on the test sets only, at the end'
    if config.gradient_accumulation > 1:
        parts = config.gradient_accumulation
        yield f'{config.batch} images per step in {parts} parts: batch norm sees {config.batch // parts} images at once'
    if config.optimizer.scale_lr_with_batch:
        factor = config.batch / PUBLISHED_BATCH
        yield f'learning rates × {factor:g} for {config.batch} images per step (scale_lr_with_batch)'
    if config.ema is not None:
        yield f'evaluated with weights averaged over the steps (ema={config.ema:g})'


def _about(config: Any, dataset: Dataset, lossnet: LossNet | None) -> dict[str, Any]:
    """Returns what identifies a run: the resolved config, the hashes of its data and of LossNet, the versions."""
    return {
        'config': to_json(config),
        'manifest_hash': dataset.manifest_hash,
        'reading': dataset.reading.to_json(),
        'lossnet_hash': None if lossnet is None else _hash(nnx.state(lossnet)),
        'versions': versions(),
    }


def _hash(tree: Any) -> str:
    """Returns the SHA-256 of the bytes of all arrays of a tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()

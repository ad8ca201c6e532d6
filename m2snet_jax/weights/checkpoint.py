"""Checkpoints of a run, by orbax."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from m2snet_jax.devices import processes
from m2snet_jax.errors import InputError
from m2snet_jax.models.model_weights import ModelWeights
from m2snet_jax.storage import fetch, publish, refusal

UNMEASURED = -1.0  # the Dice of a checkpoint for which none was measured, below every other


class Checkpoints:
    """The checkpoints in one folder, written in the background and atomically.

    A checkpoint holds the fields of a TrainState in two items, so that prediction reads the model alone: `model`
    (the parameters and running statistics to predict with) and `training` (all the rest). The newest `keep` are kept,
    and with `choose` also the one that was saved with the highest Dice. Of several processes the first one reads and
    writes the folder, since every process has the whole state.
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, choose: bool = False):
        logging.getLogger('absl').setLevel(logging.WARNING)  # orbax logs every file it touches
        logging.getLogger('absl').addFilter(_is_news)
        folder = Path(folder).resolve()
        fetch(folder)
        policies: list = [preservation.LatestN(keep)]
        if choose:
            policies.append(preservation.BestN(get_metric_fn=_dice, n=1))

        def saved():
            with contextlib.suppress(InputError):  # the next call of `publish` raises it
                publish(folder)

        several = jax.process_count() > 1
        first = {'active_processes': {0}, 'barrier_sync_key_prefix': 'first'} if several else {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation.AnyPreservationPolicy(policies),
            best_fn=_dice if choose else None,
            create=not several,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=saved),
            multiprocessing_options=ocp.options.MultiprocessingOptions(**first),
        )
        if processes.is_primary():
            folder.mkdir(parents=True, exist_ok=True)
        self._several, self._folder = several, folder
        self._manager: Any = ocp.CheckpointManager(folder, options=options) if processes.is_primary() else None
        self._choose, self._failed = choose, False
        self._report_ignored, sys.unraisablehook = sys.unraisablehook, self._ignored

    def latest_step(self) -> int | None:
        """Returns the newest step saved."""
        return processes.from_primary(self._manager and self._manager.latest_step())

    def chosen_step(self) -> int | None:
        """Returns the step saved with the highest Dice if `choose`, else the newest."""
        return processes.from_primary(self._manager and self._manager.best_step())

    def save(self, step: int, state: Any, dice: float | None = None) -> None:
        """Saves a TrainState in the background, with the Dice measured for it if any; `close` waits for it."""
        # The next step overwrites this state's memory while orbax still reads it, so orbax gets a copy.
        if self._manager is None:
            return
        items = _items(jax.tree.map(np.asarray if self._several else jax.numpy.copy, state))
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        metrics = {'Dice': UNMEASURED if dice is None else dice} if self._choose else None
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**arguments), metrics=metrics)

    def save_model(self, step: int, weights: ModelWeights) -> None:
        """Saves the `ModelWeights` of a model alone, from which no training can be resumed."""
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave(_item(weights))))

    def restore(self, like: Any) -> Any:
        """Returns the newest state, with the structure, dtypes and shardings of the TrainState `like`."""
        step = self.latest_step()
        if step is None:
            raise InputError(f'{self._folder}: holds no checkpoint')
        items = self._restored(step, _items(like))
        model, training = items['model'], items['training']
        if like.ema is not None:
            training['ema'] = ModelWeights(**model)
        return like.replace(**{**model, **training})

    def restore_eval_weights(self, step: int | None, like: Any) -> ModelWeights:
        """Returns the weights of a step to predict with, with the shardings of the TrainState `like`."""
        return ModelWeights(**self._restored(step, {'model': _items(like)['model']})['model'])

    def _restored(self, step: int | None, items: dict[str, Any]) -> dict[str, Any]:
        """Returns items of a checkpoint with the structure and shardings of `items`; every process gets the first's."""
        like, restored = jax.tree.map(ocp.utils.to_shape_dtype_struct, items), None
        if self._several:
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), items)
        if self._manager is not None:
            arguments = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
            found = self._manager.restore(step, args=ocp.args.Composite(**arguments))
            restored = {name: found[name] for name in items}
        if not self._several:
            assert restored is not None
            return restored
        arrays = processes.from_primary(None if restored is None else jax.tree.leaves(restored))
        leaves, structure = jax.tree.flatten(items)
        placed = [
            jax.make_array_from_callback(leaf.shape, leaf.sharding, np.asarray(array).__getitem__)
            for leaf, array in zip(leaves, arrays, strict=True)
        ]
        return jax.tree.unflatten(structure, placed)

    def close(self) -> None:
        """Waits until everything is on disk; raises InputError if something could not be written."""
        if self._failed or self._manager is None:  # the reason is raised already
            return
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()
        if sys.unraisablehook == self._ignored:
            sys.unraisablehook = self._report_ignored

    def _ignored(self, exception: Any) -> None:
        """Reports an exception that Python ignores, but not those of tensorstore after a write has failed.

        One for each array that is still being written, since the loop that waited for it is closed.
        """
        if str(exception.exc_value) != 'Event loop is closed':
            self._report_ignored(exception)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what orbax raises while it writes, here or later for a save in the background, into an InputError."""
        try:
            yield
        except Exception as error:
            self._failed = True
            if (reason := refusal(error)) is None:
                raise
            raise InputError(
                f'{self._folder}: a checkpoint cannot be written ({reason}); the earlier ones are good: '
                'make room, or name a folder that can be written, and give the same command again'
            ) from None


def saved_steps(folder: str | Path) -> list[int]:
    """Returns the steps whose checkpoints are in a folder, which need not exist."""
    folder = Path(folder).resolve()
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is logged: not the stack traces of a full disk, one a thread of orbax; one error is raised."""
    return 'orbax' not in record.pathname or not record.exc_info or refusal(record.exc_info[1]) is None


def _items(state: Any) -> dict[str, dict]:
    """Returns the two items of a checkpoint: {'model': …, 'training': …}."""
    training = {'step': state.step, 'opt_state': state.opt_state}
    if state.ema is not None:
        training |= _item(ModelWeights(state.params, state.batch_stats))
    return {'model': _item(state.eval_weights), 'training': training}


def _item(weights: ModelWeights) -> dict[str, Any]:
    """Returns the item of a checkpoint that holds `ModelWeights`."""
    return {'params': weights.params, 'batch_stats': weights.batch_stats}


def _dice(metrics: Mapping[str, float]) -> float:
    return metrics['Dice']


def restore_model(
    folder: str | Path, like: ModelWeights, step: int | None = None, *, choose: bool = False
) -> ModelWeights:
    """Returns the weights of a checkpoint as numpy arrays; changes nothing in the folder.

    The step is by default the newest, with `choose` the one with the highest Dice. `like` has the arrays of the
    checkpoint, or their shapes and dtypes (`jax.ShapeDtypeStruct`).

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another model.
    """
    folder = Path(folder).resolve()
    steps = saved_steps(folder)
    if not steps or step not in (None, *steps):
        raise InputError(f'{folder}: holds no checkpoint{"" if step is None else f" {step}"}')
    if step is None:
        step = (_chosen_step(folder) if choose else None) or max(steps)
    fetch(folder / str(step))
    path = epath.Path(folder / str(step) / 'model')
    model = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _item(like))
    handler = ocp.StandardCheckpointHandler()
    try:
        # orbax itself would cut arrays of another shape and ignore missing ones.
        there, here = _shapes(handler.metadata(path).tree), _shapes(model)
        if there != here:
            name = next(name for name in (*here, *there) if there.get(name) != here.get(name))
            raise InputError(
                f'{path}: holds another model than its config names, or than is loaded here: {name} is '
                f'{there.get(name, "missing")} there and {here.get(name, "missing")} here'
            )
        model = handler.restore(path, args=ocp.args.StandardRestore(model))
    except InputError:
        raise
    except Exception as error:  # a damaged file can make any of its many threads fail in any way
        raise InputError(f'{path}: damaged, cannot be read ({type(error).__name__})') from error
    finally:
        handler.close()
    return ModelWeights(**model)


def _chosen_step(folder: Path) -> int | None:
    """Returns the step saved with the highest Dice, None if no Dice was saved."""
    fetch(folder)
    options = ocp.CheckpointManagerOptions(best_fn=_dice, read_only=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        return manager.best_step()


def _shapes(tree: Any) -> dict[str, tuple]:
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }

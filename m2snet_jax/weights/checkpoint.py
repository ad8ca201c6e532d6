"""Checkpoints of a run, by orbax."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from m2snet_jax.errors import InputError
from m2snet_jax.models.model_weights import ModelWeights

UNMEASURED = -1.0  # the Dice of a checkpoint for which none was measured, below every other


class Checkpoints:
    """The checkpoints in one folder, written in the background and atomically.

    A checkpoint holds the fields of a TrainState in two items, so that prediction reads the model alone: `model`
    (the parameters and running statistics to predict with) and `training` (all the rest). The newest `keep` are kept,
    and with `choose` also the one that was saved with the highest Dice.
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, choose: bool = False):
        logging.getLogger('absl').setLevel(logging.WARNING)  # orbax logs every file it touches
        policies: list = [preservation.LatestN(keep)]
        if choose:
            policies.append(preservation.BestN(get_metric_fn=_dice, n=1))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation.AnyPreservationPolicy(policies),
            best_fn=_dice if choose else None,
            create=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)
        self._choose = choose

    def latest_step(self) -> int | None:
        """Returns the newest step saved."""
        return self._manager.latest_step()

    def chosen_step(self) -> int | None:
        """Returns the step saved with the highest Dice if `choose`, else the newest."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, dice: float | None = None) -> None:
        """Saves a TrainState in the background, with the Dice measured for it if any; `close` waits for it."""
        # The next step overwrites this state's memory while orbax still reads it, so orbax gets a copy.
        items = _items(jax.tree.map(jax.numpy.copy, state))
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        metrics = {'Dice': UNMEASURED if dice is None else dice} if self._choose else None
        self._manager.save(step, args=ocp.args.Composite(**arguments), metrics=metrics)

    def save_model(self, step: int, weights: ModelWeights) -> None:
        """Saves the `ModelWeights` of a model alone, from which no training can be resumed."""
        self._manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave(_item(weights))))

    def restore(self, like: Any) -> Any:
        """Returns the newest state, with the structure, dtypes and shardings of the TrainState `like`."""
        step = self.latest_step()
        if step is None:
            raise InputError(f'{self._manager.directory}: holds no checkpoint')
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(like))
        arguments = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        items = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        model, training = items['model'], items['training']
        if like.ema is not None:
            training['ema'] = ModelWeights(**model)
        return like.replace(**{**model, **training})

    def restore_eval_weights(self, step: int | None, like: Any) -> ModelWeights:
        """Returns the weights of a step to predict with, with the shardings of the TrainState `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(like)['model'])
        model = self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(abstract)))['model']
        return ModelWeights(**model)

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


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
    folder, steps = Path(folder).resolve(), _steps(folder)
    if not steps or step not in (None, *steps):
        raise InputError(f'{folder}: holds no checkpoint{"" if step is None else f" {step}"}')
    if step is None:
        step = (_chosen_step(folder) if choose else None) or max(steps)
    path = epath.Path(folder / str(step) / 'model')
    model = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _item(like))
    handler = ocp.StandardCheckpointHandler()
    try:
        # orbax itself would cut arrays of another shape and ignore missing ones.
        if _shapes(handler.metadata(path).tree) != _shapes(model):
            raise InputError(f'{path}: holds another model than its config names')
        model = handler.restore(path, args=ocp.args.StandardRestore(model))
    except InputError:
        raise
    except Exception as error:  # a damaged file can make any of its many threads fail in any way
        raise InputError(f'{path}: damaged, cannot be read ({type(error).__name__})') from error
    finally:
        handler.close()
    return ModelWeights(**model)


def newest_step(folder: str | Path) -> int | None:
    """Returns the newest step saved in a folder of checkpoints, None if there is none. It changes nothing there."""
    return max(_steps(folder), default=None)


def _steps(folder):
    folder = Path(folder).resolve()
    return ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []


def _chosen_step(folder: Path) -> int | None:
    """Returns the step saved with the highest Dice, None if no Dice was saved."""
    options = ocp.CheckpointManagerOptions(best_fn=_dice, read_only=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        return manager.best_step()


def _shapes(tree: Any) -> dict[str, tuple]:
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }

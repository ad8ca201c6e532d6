"""Checkpoints of a run: the only file that knows orbax."""

import logging
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from m2snet_jax.errors import InputError

UNMEASURED = -1.0  # the Dice of a checkpoint for which none was measured, below every other


class Checkpoints:
    """The checkpoints in one folder: written in the background, each one whole or not there at all.

    A checkpoint holds the fields of a TrainState in two items, so that prediction reads the model alone: `model`
    (the parameters and running statistics to predict with) and `training` (all the rest).

    Args:
        folder: made when the first checkpoint is saved.
        keep: how many of the newest are kept.
        choose: also keep the one that was saved with the highest Dice.
    """

    def __init__(self, folder, keep=2, *, choose=False):
        logging.getLogger('absl').setLevel(logging.WARNING)  # orbax tells of every file it touches
        policies = [preservation.LatestN(keep)]
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

    def latest_step(self):
        """Returns the newest step saved, None if there is none."""
        return self._manager.latest_step()

    def chosen_step(self):
        """Returns the step saved with the highest Dice, where one is to be chosen, else the newest."""
        return self._manager.best_step()

    def save(self, step, state, dice=None):
        """Saves a TrainState in the background, with the Dice measured for it if any; `close` waits for it."""
        # The next step is given this state's memory while orbax still reads it, so orbax gets a copy.
        items = _items(jax.tree.map(jax.numpy.copy, state))
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        metrics = {'Dice': UNMEASURED if dice is None else dice} if self._choose else None
        self._manager.save(step, args=ocp.args.Composite(**arguments), metrics=metrics)

    def save_model(self, step, params, batch_stats):
        """Saves a model alone, with which nothing can be resumed."""
        model = {'params': params, 'batch_stats': batch_stats}
        self._manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave(model)))

    def restore(self, like):
        """Returns the newest state, with the structure, dtypes and shardings of the TrainState `like`."""
        step = self.latest_step()
        if step is None:
            raise InputError(f'{self._manager.directory}: holds no checkpoint')
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(like))
        arguments = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        items = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        model, training = items['model'], items['training']
        if like.average is not None:
            training['average'] = model['params'], model['batch_stats']
        return like.replace(**{**model, **training})

    def restore_evaluated(self, step, like):
        """Returns (params, batch_stats) to predict with of one step, with the shardings of the TrainState `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(like)['model'])
        model = self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(abstract)))['model']
        return model['params'], model['batch_stats']

    def close(self):
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _items(state):
    """The two items of a checkpoint: {'model': …, 'training': …}."""
    params, batch_stats = state.evaluated
    training = {'step': state.step, 'opt_state': state.opt_state}
    if state.average is not None:
        training |= {'params': state.params, 'batch_stats': state.batch_stats}
    return {'model': {'params': params, 'batch_stats': batch_stats}, 'training': training}


def _dice(metrics):
    return metrics['Dice']


def restore_model(folder, params, batch_stats, step=None, *, choose=False):
    """Returns (params, batch_stats) of a checkpoint as numpy arrays; changes nothing in the folder.

    Args:
        folder: where a `Checkpoints` writes, or wrote.
        params: arrays, or their shapes and dtypes (`jax.ShapeDtypeStruct`), as the checkpoint has them.
        batch_stats: the same.
        step: by default the newest.
        choose: without a step, take the one with the highest Dice.

    Raises:
        InputError: no such checkpoint, or one of another model.
    """
    folder = Path(folder).resolve()
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps or step not in (None, *steps):
        raise InputError(f'{folder}: holds no checkpoint{"" if step is None else f" {step}"}')
    if step is None:
        step = (_chosen_step(folder) if choose else None) or max(steps)
    path = folder / str(step) / 'model'
    model = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), {'params': params, 'batch_stats': batch_stats})
    handler = ocp.StandardCheckpointHandler()
    try:
        # orbax itself would cut what has another shape, and leave as it is what is not there.
        if _shapes(handler.metadata(path).tree) != _shapes(model):
            raise InputError(f'{path}: holds another model than its config names')
        model = handler.restore(path, args=ocp.args.StandardRestore(model))
    except InputError:
        raise
    except Exception as error:  # a damaged file can make any of its many threads fail in any way
        raise InputError(f'{path}: damaged, cannot be read ({type(error).__name__})') from error
    finally:
        handler.close()
    return model['params'], model['batch_stats']


def _chosen_step(folder):
    """The step saved with the highest Dice, None if no Dice was saved."""
    options = ocp.CheckpointManagerOptions(best_fn=_dice, read_only=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        return manager.best_step()


def _shapes(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }

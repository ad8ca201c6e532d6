"""Checkpoints of a run: the only file that knows orbax."""

import logging
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from m2snet_jax.errors import InputError


class Checkpoints:
    """The checkpoints in one folder: written in the background, each one whole or not there at all.

    A checkpoint holds the fields of a TrainState in two items, so that prediction reads the model alone: `model`
    (parameters and running statistics) and `training` (step and optimizer).

    Args:
        folder: made when the first checkpoint is saved.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder, keep=2):
        logging.getLogger('absl').setLevel(logging.WARNING)  # orbax tells of every file it touches
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def latest_step(self):
        """Returns the newest step saved, None if there is none."""
        return self._manager.latest_step()

    def save(self, step, state):
        """Saves a TrainState in the background; `close` waits for it."""
        # The next step is given this state's memory while orbax still reads it, so orbax gets a copy.
        state = jax.tree.map(jax.numpy.copy, state)
        model = {'params': state.params, 'batch_stats': state.batch_stats}
        training = {'step': state.step, 'opt_state': state.opt_state}
        self._manager.save(
            step,
            args=ocp.args.Composite(model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training)),
        )

    def save_model(self, step, params, batch_stats):
        """Saves a model alone, with which nothing can be resumed."""
        model = {'params': params, 'batch_stats': batch_stats}
        self._manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave(model)))

    def restore(self, like):
        """Returns the newest state, with the structure, dtypes and shardings of the TrainState `like`."""
        step = self.latest_step()
        if step is None:
            raise InputError(f'{self._manager.directory}: holds no checkpoint')
        model = {'params': like.params, 'batch_stats': like.batch_stats}
        training = {'step': like.step, 'opt_state': like.opt_state}
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, {'model': model, 'training': training})
        arguments = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        items = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return like.replace(**items['model'], **items['training'])

    def close(self):
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def restore_model(folder, params, batch_stats, step=None):
    """Returns (params, batch_stats) of a checkpoint as numpy arrays; changes nothing in the folder.

    Args:
        folder: where a `Checkpoints` writes, or wrote.
        params: arrays, or their shapes and dtypes (`jax.ShapeDtypeStruct`), as the checkpoint has them.
        batch_stats: the same.
        step: by default the newest.

    Raises:
        InputError: no such checkpoint, or one of another model.
    """
    folder = Path(folder).resolve()
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps or step not in (None, *steps):
        raise InputError(f'{folder}: holds no checkpoint{"" if step is None else f" {step}"}')
    path = folder / str(max(steps) if step is None else step) / 'model'
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


def _shapes(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }

"""Checkpoints of a run: the only file that knows orbax."""

import logging
from pathlib import Path

import jax
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

    def restore(self, like):
        """Returns the newest state, with the structure, dtypes and shardings of the TrainState `like`."""
        model = {'params': like.params, 'batch_stats': like.batch_stats}
        training = {'step': like.step, 'opt_state': like.opt_state}
        items = self._restore(model=model, training=training)
        return like.replace(**items['model'], **items['training'])

    def restore_model(self, params, batch_stats):
        """Returns (params, batch_stats) of the newest checkpoint, shaped like those given."""
        model = self._restore(model={'params': params, 'batch_stats': batch_stats})['model']
        return model['params'], model['batch_stats']

    def _restore(self, **items):
        step = self.latest_step()
        if step is None:
            raise InputError(f'{self._manager.directory}: holds no checkpoint')
        abstract = {name: jax.tree.map(ocp.utils.to_shape_dtype_struct, item) for name, item in items.items()}
        arguments = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**arguments))

    def close(self):
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

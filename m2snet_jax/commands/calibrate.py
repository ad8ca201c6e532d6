"""Calibrates the probabilities of a model: fits one number, the temperature, that divides its logits.

python -m m2snet_jax calibrate --model=RUN|FILE|PATTERN … [--config=NAME] [--root=DATA] [--config.key=value …]

The temperature is fitted on the validation images that the run held out of training (data.validation), never on test
images. It is stored in RUN/temperature.json, or in FILE.temperature.json beside a file of weights. `predict`,
`evaluate` and `demo` use it with --calibrated. It changes the levels of maps but, for one model, not which pixels are
above 0.5. Several models get a temperature each. For a file of weights, --config names the dataset and the model.
"""

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        about = 'folder of a run, a file of weights, or a pattern of these'
        flags.DEFINE_multi_string('model', [], about, flag_values=values)

    config, named, values, _ = parse(argv, __doc__, define, config='default')
    if not values.model:
        raise InputError('--model is missing')

    from m2snet_jax.build import check_config
    from m2snet_jax.devices.memory import keep_freed_memory
    from m2snet_jax.devices.programs import use_compilation_cache
    from m2snet_jax.evaluation.calibrating import calibrate
    from m2snet_jax.evaluation.test_sets import own_config
    from m2snet_jax.prediction.members import find_models
    from m2snet_jax.prediction.predictor import load_model
    from m2snet_jax.prediction.temperature_file import write_temperature

    use_compilation_cache()
    keep_freed_memory()
    for model in find_models(values.model, '--model='):
        own = config
        if not named:
            own = parse(argv, None, define, config='default', load=lambda _, model=model: own_config(model)).config
        check_config(own)
        found = calibrate(model, load_model(model, config=own), own)
        path, error = write_temperature(model, found), found['calibration_error']
        print(
            f'{path}: temperature {found["temperature"]:.4f} from {found["images"]} validation images; expected '
            f'calibration error {error["before"]:.4f} → {error["after"]:.4f}'
        )

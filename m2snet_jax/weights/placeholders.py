"""Placeholders for what a PyTorch file holds beside its tensors: nothing is imported, called or read for them.

A pickle makes an object by calling something. The names in `INERT` make plain data when they are called; any other call
is refused by its name. An instance of a class, made without a call of it (the opcode NEWOBJ), is data as well, unless
the class is of Python's own library and not in `INERT`.
"""

import sys
from dataclasses import dataclass

from m2snet_jax.errors import InputError

# Modules, and what of them makes plain data when it is called.
_DATA = (
    ('argparse', 'Namespace'),
    ('types', 'SimpleNamespace'),
    ('builtins', 'bool bytearray bytes complex dict float frozenset int list object range set slice str tuple'),
    ('collections', 'Counter defaultdict deque'),
    ('copyreg', '_reconstructor'),
    ('_codecs', 'encode'),
    ('array', '_array_reconstructor'),
    ('datetime', 'date datetime time timedelta timezone'),
    ('time', 'struct_time'),
    ('zoneinfo', 'ZoneInfo._unpickle'),
    ('decimal', 'Decimal'),
    ('fractions', 'Fraction'),
    ('uuid', 'UUID'),
    ('pathlib', 'Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath'),
    ('pathlib._local', 'Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath'),
    (
        'numpy',
        'ndarray dtype matrix bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64',
    ),
    ('numpy', 'longdouble complex64 complex128 str_ bytes_ datetime64 timedelta64'),
    ('numpy.core.multiarray', '_reconstruct scalar'),
    ('numpy._core.multiarray', '_reconstruct scalar'),
    ('numpy.core.numeric', '_frombuffer'),
    ('numpy._core.numeric', '_frombuffer'),
    ('numpy.ma.core', '_mareconstruct MaskedArray'),
    ('numpy.random._pickle', '__randomstate_ctor __generator_ctor __bit_generator_ctor'),
    ('numpy.random._mt19937', 'MT19937'),
    ('numpy.random._pcg64', 'PCG64 PCG64DXSM'),
    ('numpy.random._philox', 'Philox'),
    ('numpy.random.bit_generator', 'SeedSequence __pyx_unpickle_SeedSequence'),
    ('torch', 'Generator'),
    ('torch.serialization', '_get_layout'),
    ('torch._utils', '_rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_nested_tensor _rebuild_qtensor'),
    ('torch._utils', '_rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass'),
)
INERT = frozenset(f'{module}.{name}' for module, names in _DATA for name in names.split())
# Python 2's names of modules.
_OLD_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A global of a pickle by its full name, or an object that was `made` from it."""

    name: str
    made: bool = False


def called(function: Placeholder, *, as_class: bool = False) -> Placeholder:
    """Returns what a pickle makes of a name that it calls, or of a class that it makes an instance of.

    Raises:
        InputError: a call that does not only make data.
    """
    module, _, name = function.name.rpartition('.')
    module = _OLD_MODULES.get(module, module)
    own = as_class and name[:1].isupper() and module.partition('.')[0] not in (*sys.stdlib_module_names, 'builtins')
    if function.made or not (own or f'{module}.{name}' in INERT):
        raise refusal(function)
    return Placeholder(function.name, made=True)


def refusal(stranger: Placeholder) -> InputError:
    """Returns the error for something that is neither a tensor nor plain data."""
    return InputError(
        f'refused: it asks for {printable(stranger.name)}, which no state dict needs; nothing was run '
        '(if you trust its origin, save its state_dict() alone)'
    )


def printable(name: str) -> str:
    """Returns a name from a file, shortened and escaped for a one-line message."""
    name = name if len(name) <= 120 else f'{name[:119]}…'
    return name if name.isprintable() else ascii(name)

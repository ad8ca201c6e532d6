"""Names of modules in compiled programs and profiles, e.g. `encoder/layer3/block2/conv1`."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
from flax import nnx

P = ParamSpec('P')
R = TypeVar('R')


def scoped(call: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Decorates the `__call__` of a module: its operations carry the module's name in compiled programs and profiles.

    The name is that of `name_modules`, or the name of the class.
    """

    @functools.wraps(call)
    def scoped_call(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with jax.named_scope(getattr(self, 'scope', type(self).__name__)):
            return call(self, *args, **kwargs)

    return scoped_call


def name_modules(module: nnx.Module, prefix: str = '') -> None:
    """Names each module inside `module` by its attribute, and an item of a list or dict also by its index or key.

    Names are relative to the enclosing module, since scopes nest as the calls do.
    """
    for key, child in nnx.iter_children(module):
        if isinstance(child, nnx.List | nnx.Dict):
            name_modules(child, f'{prefix}{key}/')
        elif isinstance(child, nnx.Module):
            child.scope = f'{prefix}{key}'  # pyright: ignore[reportAttributeAccessIssue]  # an attribute of our own
            name_modules(child)

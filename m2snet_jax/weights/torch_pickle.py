"""The pickle inside a PyTorch file, interpreted without being able to run anything.

`pickletools` of the standard library splits a pickle into opcodes. Those that a state dict needs act on a plain stack;
the only functions are the few of `_ADMITTED`, which record where a tensor is in the file. Other data become
placeholders (`placeholders.py`). Any other call or opcode is refused by its name. Attacks on a real unpickler (calls,
imports, huge memos, slow hashes) are not possible here.
"""

import pickletools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.weights.placeholders import Placeholder, called, printable, refusal
from m2snet_jax.weights.torch_tensors import ElementType, Storage, Tensor

_MOST_OPCODES = 500_000  # a Res2Net-101 with the state of its optimizer takes about 50,000


def unpickle(file: Any) -> tuple[Any, dict[str, Storage]]:
    """Interprets the pickle that begins at the file's position and leaves the position behind its end.

    Returns:
        The pickled value, in which tensors are `Tensor`, dicts have their string keys only (no other names a tensor),
        sets are lists and other objects are `Placeholder`; and every storage that it mentions, by its key.

    Raises:
        InputError: the pickle asks for a call that does not make plain data, or has too many opcodes.
        Exception: any other error, for invalid bytes; a ValueError gives the reason.
    """
    stack, marks, memo, storages = [], [], {}, {}

    def pop_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number == _MOST_OPCODES:
            raise InputError(f'its pickle has more than {_MOST_OPCODES:,} opcodes: no state dict')
        match opcode.name:
            case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'LONG4' | 'INT' | 'LONG' | 'BINFLOAT' | 'FLOAT':
                stack.append(argument)
            case 'BINUNICODE' | 'SHORT_BINUNICODE' | 'BINUNICODE8' | 'UNICODE':
                stack.append(argument)
            case (
                'BINSTRING' | 'SHORT_BINSTRING' | 'STRING' | 'BINBYTES' | 'SHORT_BINBYTES' | 'BINBYTES8' | 'BYTEARRAY8'
            ):
                stack.append(argument)
            case 'NONE' | 'NEWTRUE' | 'NEWFALSE' | 'EMPTY_TUPLE':
                stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}[opcode.name])
            case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
                _expect_counts(argument)
                memo[argument] = stack[-1]
            case 'MEMOIZE':
                memo[len(memo)] = stack[-1]
            case 'BINGET' | 'LONG_BINGET' | 'GET':
                stack.append(memo[argument])
            case 'MARK':
                marks.append(len(stack))
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                start = len(stack) - int(opcode.name[-1])
                stack[start:] = [tuple(stack[start:])]
            case 'TUPLE' | 'FROZENSET':
                stack.append(tuple(pop_mark()))
            case 'EMPTY_LIST' | 'EMPTY_SET':
                stack.append([])
            case 'LIST':
                stack.append(pop_mark())
            case 'APPEND' | 'APPENDS' | 'ADDITEMS':
                values = [stack.pop()] if opcode.name == 'APPEND' else pop_mark()
                if not isinstance(stack[-1], Placeholder):
                    _expect(stack[-1], list).extend(values)
            case 'EMPTY_DICT':
                stack.append({})
            case 'DICT':
                stack.append(_dictionary(pop_mark()))
            case 'SETITEM' | 'SETITEMS':
                items = [stack.pop(), stack.pop()][::-1] if opcode.name == 'SETITEM' else pop_mark()
                if not isinstance(stack[-1], Placeholder):
                    _expect(stack[-1], dict).update(_dictionary(items))
            case 'GLOBAL':
                stack.append(_global(*_expect(argument, str).split(' ', 1)))
            case 'STACK_GLOBAL':
                name, module = stack.pop(), stack.pop()
                stack.append(_global(_expect(module, str), _expect(name, str)))
            case 'INST':
                stack.append(_call(_global(*_expect(argument, str).split(' ', 1)), tuple(pop_mark())))
            case 'OBJ':
                function, *arguments = pop_mark()
                stack.append(_call(function, tuple(arguments)))
            case 'REDUCE' | 'NEWOBJ':
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments, as_class=opcode.name == 'NEWOBJ'))
            case 'BUILD':
                stack.pop()  # attributes, as the `_metadata` of a state dict
                if not isinstance(stack[-1], Placeholder):
                    _expect(stack[-1], (dict, Tensor))
            case 'BINPERSID':
                root, storage = _storage(*_expect(stack.pop(), tuple))
                if storages.setdefault(root.key, root) != root:
                    raise ValueError(f'storage {printable(root.key)} is described in two ways')
                stack.append(storage)
            case 'PROTO' | 'FRAME':
                pass
            case 'STOP':
                return stack.pop(), storages
            case name:
                raise ValueError(f'its pickle uses the opcode {name}, which no state dict needs')
    raise ValueError('its pickle has no end')


def _storage(kind, key_type, key, location, count, view=None):
    """Returns the whole storage that a persistent id describes, and the part of it that is used."""
    if kind != 'storage':
        raise ValueError('its pickle refers to something that is not a storage')
    root = Storage(_expect(key, str), _expect(key_type, ElementType), count)
    first, length = (0, count) if view is None else view[1:]  # a storage that is a part of another: before PyTorch 0.4
    _expect_counts(count, first, length)
    if first + length > count:
        raise ValueError(f'a part of storage {printable(key)} reaches beyond it')
    return root, replace(root, first=first, count=length)


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None, *, element_type=None):
    element_type = element_type or _expect(storage, Storage).type
    if metadata or not len(size) == len(stride) <= 64:
        raise ValueError('a tensor that is a conjugate or negated view, or has not as many strides as dimensions')
    size, stride = tuple(size), tuple(stride)
    _expect_counts(offset, *size, *stride)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * element_type.stored.itemsize > storage.nbytes():
        raise ValueError(f'a tensor of shape {size} reaches beyond its storage of {storage.nbytes():,} bytes')
    return Tensor(storage, element_type, offset, size, stride)


def _typed_tensor(storage, offset, size, stride, requires_grad, hooks, element_type, metadata=None):
    return _tensor(storage, offset, size, stride, metadata=metadata, element_type=_expect(element_type, ElementType))


def _parameter(tensor, *_):
    return _expect(tensor, Tensor)


def _tensor_of_class(function, tensor_class, arguments, attributes):
    if function is _tensor_of_class:
        raise ValueError('a tensor class inside another')
    return _parameter(_call(function, arguments))


def _dictionary(items):
    """Returns the dict of [key, value, key, value, …]; string keys only: others may hash slowly or collide."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str}


def _ordered_dict(pairs=()):
    """Python 2 passes the items. The list is emptied: a thousand calls that share a long one would take hours."""
    ordered = {key: value for key, value in pairs if type(key) is str}
    if pairs:
        _expect(pairs, list).clear()
    return ordered


def _call(function: Any, arguments: Any, *, as_class: bool = False) -> Any:
    if isinstance(function, Placeholder):
        return called(function, as_class=as_class)
    if not callable(function) or len(_expect(arguments, tuple)) > 8:  # callable means: a function of _ADMITTED
        raise ValueError('its pickle calls something that is not a function')
    return function(*arguments)


def _global(module: str, name: str) -> Callable | ElementType | Placeholder | None:
    full = f'{module}.{name}'
    return _ADMITTED[full] if full in _ADMITTED else Placeholder(full)


def _expect_counts(*counts: Any) -> None:
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        raise ValueError('a size, stride or offset is not a count')


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    if isinstance(value, Placeholder):
        raise refusal(value)
    if not isinstance(value, kind):
        raise ValueError('its pickle puts one thing where another belongs')
    return value


_FLOATS = ('float64', 'float32', 'float16', 'complex128', 'complex64')
_INTEGERS = ('int64', 'int32', 'int16', 'int8', 'uint64', 'uint32', 'uint16', 'uint8')
_TYPES = {
    **{name: ElementType(np.dtype(name), np.dtype(name)) for name in (*_FLOATS, *_INTEGERS)},
    'bfloat16': ElementType(np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)),
    # NumPy trusts a bool to be 0 or 1, and a file can hold any byte.
    'bool': ElementType(np.dtype(np.uint8), np.dtype(bool)),
}
_STORAGES = {
    **{'Float': 'float32', 'Double': 'float64', 'Half': 'float16', 'BFloat16': 'bfloat16'},
    **{'ComplexFloat': 'complex64', 'ComplexDouble': 'complex128'},
    **{'Long': 'int64', 'Int': 'int32', 'Short': 'int16', 'Char': 'int8', 'Byte': 'uint8', 'Bool': 'bool'},
}
_ADMITTED = {
    'collections.OrderedDict': _ordered_dict,
    'torch.Size': lambda items=(): tuple(items[:64]),
    'torch.device': lambda *_: None,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _typed_tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch._tensor._rebuild_from_type_v2': _tensor_of_class,
    'torch.Tensor': None,
    'torch.nn.parameter.Parameter': _parameter,
    'torch.storage.UntypedStorage': _TYPES['uint8'],
    'torch.storage._UntypedStorage': _TYPES['uint8'],
    **{f'torch.{name}Storage': _TYPES[element] for name, element in _STORAGES.items()},
    **{f'torch.{name}': element_type for name, element_type in _TYPES.items()},
}

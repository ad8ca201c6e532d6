"""The collectives of a compiled program, counted from its text."""

import re
from typing import Any

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast')
# `-start` begins an asynchronous collective; its `-done` is not counted again.
_OPERATION = re.compile(rf'= (?P<type>.+?) (?P<kind>{"|".join(KINDS)})(?P<start>-start)?\(')
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_ARRAY = re.compile(r'\b(?P<dtype>pred|token|[a-z]+\d+(?:e\d+m\d+\w*)?)\[(?P<shape>[\d,]*)\]')


def count_collectives(text: str) -> dict[str, dict[str, Any]]:
    """Counts the collectives of a compiled program, the text of `compiled.as_text()`, for one device.

    Returns:
        {kind: {'count': operations, 'bytes': of their results, 'sizes': bytes of each, largest first, 'asynchronous':
        how many of them overlap with other work}} of the kinds that occur. An operation over several arrays counts
        once, and so does one in a loop's body, since the text does not say how often it runs.
    """
    found = {}
    for number, line in enumerate(text.splitlines()):
        if operation := _OPERATION.search(line):
            size = _result_bytes(operation['type'], operation['kind'], bool(operation['start']))
            channel = _CHANNEL.search(line)
            of_kind = found.setdefault(operation['kind'], {})
            times = of_kind.setdefault(channel[0] if channel else number, [])
            times += [size] * (2 if operation['start'] else 1)
    return {kind: _summary(operations.values()) for kind, operations in sorted(found.items())}


def _summary(operations):
    """Sums up the operations of a kind, each a list of its size as often as it occurs.

    A TPU's program names an asynchronous operation several times: at its start, at its end, and in what overlaps.
    """
    return {
        'count': len(operations),
        'bytes': sum(times[0] for times in operations),
        'sizes': sorted((times[0] for times in operations), reverse=True),
        'asynchronous': sum(len(times) > 1 for times in operations),
    }


def _result_bytes(text, kind, start):
    """Bytes of an operation's result type, as `(f32[64]{0}, bf16[8,3]{1,0})`."""
    sizes = [_array_bytes(array['dtype'], array['shape']) for array in _ARRAY.finditer(text)]
    if start and kind in ('all-gather', 'collective-permute', 'collective-broadcast'):
        # These carry their operand beside the result, and permutations two counters.
        sizes = [size for size in sizes if size > 4] or sizes
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _array_bytes(dtype: str, shape: str) -> int:
    """Bytes of an array such as `bf16[8,3]`, rounded up to whole bytes."""
    if dtype == 'token':
        return 0
    bits = 8 if dtype == 'pred' else int(re.findall(r'\d+', dtype)[0])
    elements = 1
    for side in filter(None, shape.split(',')):
        elements *= int(side)
    return -(-bits * elements // 8)

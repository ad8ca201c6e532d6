"""The collectives of a compiled program, counted from its text."""

import re

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast')
# `-start` begins an asynchronous collective, whose `-done` is no second one.
_OPERATION = re.compile(rf'= (?P<type>.+?) (?P<kind>{"|".join(KINDS)})(?P<start>-start)?\(')
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_ARRAY = re.compile(r'\b(?P<dtype>pred|token|[a-z]+\d+(?:e\d+m\d+\w*)?)\[(?P<shape>[\d,]*)\]')


def count_collectives(text):
    """Counts the collectives that a compiled program holds, for one device.

    Args:
        text: the program, as `compiled.as_text()` gives it.

    Returns:
        {kind: {'count': operations, 'bytes': of their results, 'sizes': bytes of each, largest first, 'asynchronous':
        how many of them run beside something else}} of the kinds that occur. An operation over several arrays at once
        is one. Operations in a loop's body count once, since the text does not say how often it runs.
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

    A TPU's program names an asynchronous operation several times: where it begins, where it ends, and in what runs
    meanwhile.
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


def _array_bytes(dtype, shape):
    """Bytes of `bf16[8,3]`; whole bytes, of which a narrower type takes one."""
    if dtype == 'token':
        return 0
    bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])
    elements = 1
    for side in filter(None, shape.split(',')):
        elements *= int(side)
    return -(-bits * elements // 8)

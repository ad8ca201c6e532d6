"""The time of a program by the TPU compiler's own estimates, in total and by part of the network."""

import functools
import re

# A computation begins with its name and the types of its parameters, `%body.1 (x: f32[8]) -> f32[8] {`.
_COMPUTATION = re.compile(r'^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$')
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_NAME = re.compile(r'\bop_name="([^"]*)"')
_CALLED = re.compile(
    r'\b(?P<how>calls|to_apply|body|condition|true_computation|false_computation|branch_computations)='
    r'(?:\{(?P<several>[^}]*)\}|%?(?P<one>[\w.\-]+))'
)
_LIMIT = re.compile(r'= s32\[\]\S* constant\((\d+)\)')

# Parts of the network by the scopes in an operation's name; the first part whose scopes all occur is taken.
PARTS = (
    ('resize', ('resize',)),
    ('lossnet/prediction', ('lossnet', 'prediction')),
    ('lossnet/mask', ('lossnet', 'mask')),
    ('losses', ('loss',)),
    ('optimizer', ('optimizer',)),
    ('ema', ('ema',)),
    ('units', ('pyramid',)),
    ('decoder', ('reduction',)),
    ('decoder', ('enhancement',)),
    ('decoder', ('x5_dem_5',)),
)
# The scope of an encoder's stage, e.g. layer1.
_STAGE = re.compile(r'\bencoder/(?P<stage>(?:layer|stage|block)s?[_/]?\d+)\b')
_OUTPUT = re.compile(r'\boutput[1-4]\b')


def part_of(name: str) -> str:
    """Returns the part of the network of an operation, by its name in a compiled program.

    Args:
        name: scopes and operation, e.g. `jit(train_step)/transpose(jvp(M2SNet))/encoder/layer3/block0/conv1/add`.

    Returns:
        `encoder/stem`, `encoder/layer1` and so on for its stages, `units`, `decoder` (reduction and enhancement too),
        `lossnet/prediction`, `lossnet/mask`, `losses`, `optimizer`, `ema`, `resize` (everywhere) or `other`.
    """
    scopes = set(re.findall(r'\w+', name))
    for part, wanted in PARTS:
        if scopes.issuperset(wanted):
            return part
    if 'encoder' in scopes:
        stage = _STAGE.search(name)
        return f'encoder/{stage["stage"]}' if stage else 'encoder/stem'
    return 'decoder' if _OUTPUT.search(name) else 'other'


def count_cycles(text: str) -> dict[str, int] | None:
    """Sums the compiler's estimates over a compiled program, the text of `compiled.as_text()`, for one device.

    A fusion has the name of one of its operations, so that what is fused across two parts counts for one of them. The
    body of a loop counts as often as it runs if its condition is `i < constant`, as that of `lax.scan` is, else once.
    Every branch of a conditional counts.

    Returns:
        {part as in `part_of`: cycles}, the largest first; None where a compiler gives no estimates (CPU, GPU).
    """
    entry, computations = read_computations(text)

    @functools.cache
    def cycles_of(computation):
        found: dict[str, int] = {}
        for line in computations[computation]:
            if cycles := _CYCLES.search(line):
                name = _NAME.search(line)
                part = part_of(name[1] if name else '')
                found[part] = found.get(part, 0) + int(cycles[1])
            for called, times in _calls(line, computations):
                for part, cycles in cycles_of(called).items():
                    found[part] = found.get(part, 0) + times * cycles
        return found

    found = cycles_of(entry) if entry else {}
    return dict(sorted(found.items(), key=lambda item: -item[1])) or None


def read_computations(text: str) -> tuple[str | None, dict[str, list[str]]]:
    """Returns the name of a program's entry, and the lines of each of its computations by name."""
    entry, lines, computations = None, [], {}
    for line in text.splitlines():
        if begun := _COMPUTATION.match(line):
            computations[begun['name']] = lines = []
            entry = begun['name'] if begun['entry'] else entry
        else:
            lines.append(line)
    return entry, computations


def _calls(line, computations):
    """Yields the computations that an operation calls, and how often it does."""
    called = [
        (call['how'], name.strip().lstrip('%'))
        for call in _CALLED.finditer(line)
        for name in (call['several'] or call['one']).split(',')
    ]
    times = _trips(computations[dict(called)['condition']]) if 'condition' in dict(called) else 1
    return [(name, times) for _, name in called]


def _trips(condition):
    """Returns how often a loop runs: N for a condition that is `i < N`; 1 for any other."""
    limits = [int(limit[1]) for line in condition if (limit := _LIMIT.search(line))]
    counts = any(' compare(' in line and 'direction=LT' in line for line in condition)
    return limits[0] if counts and len(limits) == 1 else 1

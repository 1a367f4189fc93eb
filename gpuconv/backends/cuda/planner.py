"""Which kernel runs a call: counted work over the rates of the device.

`rates.json` has, for devices that were measured, and once for all others: microseconds of a launch and, for
one multiprocessor in a microsecond, the bytes it moves and the multiply-adds that each kernel does, by type.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from gpuconv.backends.cuda.atomic import ATOMIC
from gpuconv.backends.cuda.call import Algorithm, Call, Work
from gpuconv.backends.cuda.device import Device
from gpuconv.backends.cuda.direct import DIRECT
from gpuconv.backends.cuda.gather import MMA, TILES
from gpuconv.backends.cuda.polyphase import POLYPHASE
from gpuconv.geometry import AxisGeometry, ConvGeometry
from gpuconv.namespace import DTYPES

__all__ = ["ALGORITHMS", "ALIKE", "Limits", "choose", "explain", "instantiations", "limits_of"]

#: All that sum in one order and round alike, so that a choice among them never shows.
ALIKE = (DIRECT, POLYPHASE, *TILES)
_CHOICES = (*ALIKE, MMA)
#: All that there are. The atomic scatter is a baseline, which runs when it is asked for and not by choice.
ALGORITHMS = (*_CHOICES, ATOMIC)
# Tensor cores sum in another order. So that a sample's bits never depend on its batch, the choice between
# them and the others is made for a batch of this many.
_NOMINAL_BATCH = 1024
# How much of what takes less time, computing or moving, is not hidden behind the other: assumed.
_NOT_HIDDEN = 0.25


class Limits(NamedTuple):
    """What a choice depends on of a device."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int


def limits_of(device: Device) -> Limits:
    """The limits of `device`."""
    return Limits(device.name, device.capability, device.multiprocessors)


@functools.cache
def _all_rates() -> dict[str, dict[str, Any]]:
    text = resources.files("gpuconv.backends.cuda").joinpath("rates.json").read_text(encoding="utf-8")
    return json.loads(text)


def _rates_of(limits: Limits) -> dict[str, Any]:
    return _all_rates().get(limits.name, _all_rates()["assumed"])


def _microseconds(algorithm: Algorithm, call: Call, work: Work, limits: Limits) -> float:
    rates = _rates_of(limits)
    rate = rates["multiply_adds"][algorithm.name][DTYPES.index(call.dtype)]
    # The multiprocessors work in waves of one block each; the last wave costs as much as a full one.
    waves = -(-work.blocks // limits.multiprocessors)
    computing = work.multiply_adds / max(1, work.blocks) * waves / rate
    moving = work.bytes / (limits.multiprocessors * rates["bytes"])
    longer, shorter = max(computing, moving), min(computing, moving)
    return work.launches * rates["launch"] + longer + _NOT_HIDDEN * shorter


@functools.lru_cache(maxsize=1024)
def choose(call: Call, limits: Limits, name: str | None = None) -> Algorithm:
    """The algorithm with the lowest estimate; or the one called `name`.

    Raises
    ------
    ValueError
        If there is no such algorithm, or if it cannot run the call.
    """
    if name is not None:
        return _named(call, limits, name)
    nominal = call._replace(samples=_NOMINAL_BATCH)
    tensor = not MMA.refuses(call, limits.capability) and _fastest((*ALIKE, MMA), nominal, limits) is MMA
    return MMA if tensor else _fastest(ALIKE, call, limits)


def _fastest(algorithms: tuple[Algorithm, ...], call: Call, limits: Limits) -> Algorithm:
    return min(
        (a for a in algorithms if not a.refuses(call, limits.capability)),
        key=lambda a: _microseconds(a, call, a.work(call), limits),
    )


def _named(call: Call, limits: Limits, name: str) -> Algorithm:
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            refusal = algorithm.refuses(call, limits.capability)
            if refusal:
                raise ValueError(
                    f"Expected an algorithm that can run this. Received algorithm={name!r}: {refusal}."
                )
            return algorithm
    names = ", ".join(repr(algorithm.name) for algorithm in ALGORITHMS)
    raise ValueError(f"Expected algorithm to be None or one of {names}. Received algorithm={name!r}.")


def instantiations(capability: tuple[int, int]) -> Iterator[tuple[Algorithm, Call]]:
    """All that may be chosen on such a device, with a call for each type, layout and direction that it runs.

    Each is a module of its own. Left out are the activations, and 64-bit indices.
    """
    axis = AxisGeometry(4, 2, 1, 0, 0, 8, 18)
    geometry = ConvGeometry((axis,), in_channels=4, filters=4, groups=1)
    for algorithm, dtype, transposed, channels_last in itertools.product(
        _CHOICES, DTYPES, (True, False), (True, False)
    ):
        call = Call(geometry, 1, transposed, channels_last, dtype, "tf32")
        if not algorithm.refuses(call, capability):
            yield algorithm, call


def explain(call: Call, limits: Limits, chosen: str) -> str:
    """What each algorithm would do, the chosen one marked."""
    rates = _rates_of(limits)
    major, minor = limits.capability
    lines = [
        f"{limits.name}: compute capability {major}.{minor}, {limits.multiprocessors} multiprocessors",
        f"rates: {rates['source']}",
        f"  {'algorithm':<14} {'launches':>8} {'multiply-adds':>14} {'bytes':>9}   estimate",
    ]
    for algorithm in ALGORITHMS:
        mark = "*" if algorithm.name == chosen else " "
        refusal = algorithm.refuses(call, limits.capability)
        if refusal:
            lines.append(f"{mark} {algorithm.name:<14} {refusal}")
            continue
        work = algorithm.work(call)
        time = _microseconds(algorithm, call, work, limits)
        issued = f"{work.launches:>8} {work.multiply_adds:>14.3g} {work.bytes:>9.3g}"
        lines.append(f"{mark} {algorithm.name:<14} {issued} {time:>8.1f} us")
    return "\n".join(lines)

"""Which way to take: the one whose products and copies cost least, counted, not timed.

The rates that counts are multiplied with (`call.Cost`) were measured on one core with AVX2. What is chosen
depends on nothing but the call, so the same call gives the same bits with any number of cores.
"""

from __future__ import annotations

from gpuconv.backends.cpu.call import Algorithm, Call
from gpuconv.backends.cpu.gather import GATHER, TAPS
from gpuconv.backends.cpu.overlap_add import OVERLAP_ADD
from gpuconv.backends.cpu.row_overlap_add import ROW_OVERLAP_ADD
from gpuconv.backends.cpu.toeplitz import TOEPLITZ
from gpuconv.backends.cpu.window import WINDOW

__all__ = ["ALGORITHMS", "able", "choose", "explain"]

ALGORITHMS = (WINDOW, OVERLAP_ADD, ROW_OVERLAP_ADD, TOEPLITZ, TAPS, GATHER)


def able(call: Call, *, packing: bool = False) -> list[Algorithm]:
    """All that can run the call, the one that costs least first; packing counts where no plan has done it."""
    ways = [algorithm for algorithm in ALGORITHMS if not algorithm.refuses(call)]
    return sorted(ways, key=lambda algorithm: algorithm.cost(call).nanoseconds(packing=packing))


def choose(call: Call, asked: str | None, *, packing: bool = False) -> Algorithm:
    """The algorithm of that name, or the one that costs least.

    Raises
    ------
    ValueError
        If there is none of that name, or it refuses the call.
    """
    ways = able(call, packing=packing)
    if asked is None:
        return ways[0]
    for algorithm in ALGORITHMS:
        if algorithm.name == asked and algorithm not in ways:
            raise ValueError(
                f"Expected an algorithm that can run this. Received algorithm={asked!r}: "
                f"{algorithm.refuses(call)}."
            )
        if algorithm.name == asked:
            return algorithm
    names = ", ".join(repr(algorithm.name) for algorithm in ways)
    raise ValueError(f"Expected algorithm to be None, {names}. Received algorithm={asked!r}.")


def explain(call: Call, chosen: Algorithm) -> str:
    """What each way is expected to take, from what it does."""
    lines = [f"{chosen.name}: {chosen.reason}"]
    for algorithm in able(call):
        cost = algorithm.cost(call)
        lines.append(
            f"  {algorithm.name}: {cost.nanoseconds() / 1e6:.3g} ms of one core, {cost.multiply_adds:.3g} "
            f"multiply-adds, {cost.stored:.3g} results, {cost.copied:.3g} elements moved"
        )
    refused = [algorithm for algorithm in ALGORITHMS if algorithm.refuses(call)]
    lines.extend(f"  {algorithm.name}: {algorithm.refuses(call)}" for algorithm in refused)
    return "\n".join(lines)

"""The compile gate: all that the planner can choose compiles for real devices, without spills."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuconv.backends.cuda import polyphase
from gpuconv.backends.cuda.planner import instantiations
from gpuconv.namespace import DTYPES
from tests.emulator import compile_gate

pytestmark = pytest.mark.skipif(bool(compile_gate.missing()), reason=compile_gate.missing() or "")

# Most registers that an instantiation takes, in the order of DTYPES, with indices of 32 and of 64 bits. A
# block has 256 threads, a multiprocessor 65,536 registers: up to 64 leave room for four blocks, 80 for three,
# 128 for two, more for one.
CEILINGS = {
    "direct_conv_transpose": ((72, 72, 80, 80, 80, 96), (80, 80, 80, 96, 96, 96)),
    "direct_conv": ((72, 72, 72, 72, 72, 88), (64, 64, 64, 64, 72, 80)),
    "polyphase": ((112, 112, 112, 88, 64, 80), (144, 144, 144, 104, 96, 104)),
    "tile_gather": ((96, 96, 96, 136, 96, 160), (128, 128, 128, 152, 112, 168)),
    "mma_gather": ((120, 120, 120, 0, 0, 0), (168, 168, 160, 0, 0, 0)),
}
TANH = 5  # the longest activation


class Compiler:
    """A device that compiles, and remembers what with."""

    def __init__(self):
        self.asked = []

    def function(self, source, entry, options):
        self.asked.append((source, entry, options))


def modules(capability, dtype, wide):
    """(source, entry, options) of everything that can be chosen for a type."""
    device = Compiler()
    for algorithm, call in instantiations(capability):
        if call.dtype != dtype:
            continue
        call = call._replace(fused=0 if dtype.startswith("complex") else TANH)
        algorithm.function(device, call, wide)
        if algorithm is polyphase.POLYPHASE and call.channels_last:
            polyphase._compiled(device, call, wide, True)
    assert len(set(device.asked)) == len(device.asked)
    return device.asked


# Indices of 64 bits are for the largest devices' arrays; that they compile is asked for once.
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)], ids=["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_that_can_be_chosen_compiles_without_spills(capability, wide, dtype):
    if wide and capability != (9, 0):
        pytest.skip("64-bit indices are compiled for sm_90")
    asked = modules(capability, dtype, wide)
    arch = f"sm_{capability[0]}{capability[1]}"
    with ThreadPoolExecutor() as pool:  # NVRTC computes without Python's lock
        usages = list(pool.map(lambda module: compile_gate.compile_cubin(*module, arch), asked))
    for (_, entry, options), usage in zip(asked, usages, strict=True):
        assert usage.spill_stores == usage.spill_loads == 0, (entry, options)
        assert usage.registers <= CEILINGS[entry][wide][DTYPES.index(dtype)], (entry, options)

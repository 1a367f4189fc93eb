"""The emulator as a device: what the backend asks of CuPy, with NumPy arrays."""

import ctypes
import re

import numpy as np

from . import build, memory, translate

# As CUDA reports them: the most dynamic shared memory of a block, and the multiprocessors of a usual card.
LIMITS = {
    (7, 5): (65536, 40),
    (8, 0): (166912, 108),
    (8, 6): (101376, 84),
    (8, 9): (101376, 128),
    (9, 0): (232448, 132),
}
# Each of them must give the same bits. A number is the seed of a shuffle of threads and blocks.
ORDERS = ("forward", "reverse", 2, 3)


class CudaFault(RuntimeError):  # noqa: N818 (the name of what happened, not of an error of ours)
    """What would have been an error, or silence and wrong numbers, on a GPU."""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_bytes", ctypes.c_size_t),
        ("limit", ctypes.c_size_t),
        ("order", ctypes.c_uint),
        ("seconds", ctypes.c_uint),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
    )


def _pack(value):
    """The bytes of an argument, as CuPy packs it."""
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, np.generic):  # a number, or np.void: a struct
        return (ctypes.c_char * value.nbytes).from_buffer_copy(value.tobytes())
    for kind, packed in ((bool, ctypes.c_bool), (int, ctypes.c_longlong), (float, ctypes.c_double)):
        if isinstance(value, kind):
            return packed(value)
    if isinstance(value, complex):
        return _pack(np.complex128(value))
    raise TypeError(f"unsupported type of argument: {type(value)}")


def _three(sizes, name):
    sizes = tuple(int(n) for n in sizes)
    if not 1 <= len(sizes) <= 3 or min(sizes) < 0 or max(sizes) >= 2**32:
        raise CudaFault(f"invalid {name} size {sizes}")
    return (ctypes.c_uint * 3)(*sizes, *(1,) * (3 - len(sizes)))


def _where(address, args):
    """Which argument an illegal address is near, in words."""
    near = []
    for i, value in enumerate(args):
        pages = memory.pages_of(value) if isinstance(value, np.ndarray) else None
        if pages is not None:
            off, side = max(
                (pages.start - address, "before the start"), (address - pages.stop, "past the end")
            )
            if 0 <= off < 2**24:
                near.append((off, f" ({off} bytes {side} of argument {i}, {value.dtype} {value.shape})"))
    return min(near)[1] if near else ""


def _check_margins(args):
    """Writes that stayed inside of the pages of an array, but not inside of the array."""
    for i, value in enumerate(args):
        pages = memory.pages_of(value) if isinstance(value, np.ndarray) else None
        for side, margin in zip(
            ("before the start", "past the end"), pages.margins() if pages else (), strict=False
        ):
            if margin.strip(b"\xff"):
                raise CudaFault(f"the kernel wrote {side} of argument {i}, {value.dtype} {value.shape}")


class Emulator:
    """
    A CUDA device that is this computer's processor.

    Parameters
    ----------
    order : {"forward", "reverse"} or int
        In which order threads and blocks take their turns; a number from 2 on is the seed of a shuffle.
    capability : tuple of int
        The compute capability that it claims; sources see it as ``__CUDA_ARCH__``.
    shared_memory, multiprocessors : int, optional
        In place of what such a device has.
    front : bool
        Arrays of ``empty`` begin, rather than end, at an unreadable page.
    timeout : int
        Seconds of processor time after which a launch is a fault.
    """

    def __init__(
        self,
        order="forward",
        capability=(9, 0),
        *,
        shared_memory=None,
        multiprocessors=None,
        front=False,
        timeout=120,
    ):
        reason = build.missing()
        if reason:
            raise RuntimeError(reason)
        known = max((c for c in LIMITS if c <= tuple(capability)), default=(7, 5))
        self.name = "emulator"
        self.capability = tuple(capability)
        self.shared_memory = LIMITS[known][0] if shared_memory is None else shared_memory
        self.multiprocessors = LIMITS[known][1] if multiprocessors is None else multiprocessors
        self.front = front
        self.timeout = timeout
        self.order = {"forward": 0, "reverse": 1}.get(order, order)
        if order in (0, 1) or not isinstance(self.order, int):
            raise ValueError(f"order: 'forward', 'reverse' or a number from 2 on, got {order!r}")
        self.launches = 0
        self.switches = 0

    def empty(self, shape, dtype):
        """An array of poison whose address is a multiple of 16, as every allocation on a GPU is."""
        return memory.guarded(shape, dtype, self.front, align=16)

    def guarded(self, array, front=False, align=1):
        """A copy of an array that ends (``front``: begins) exactly at an unreadable page."""
        copy = memory.guarded(array.shape, array.dtype, front, align)
        copy[...] = array
        return copy

    def function(self, source, entry, options=()):
        """
        Compile one kernel.

        Parameters
        ----------
        source : str
            CUDA C++ without includes of its own.
        entry : str
            The name of an ``extern "C" __global__`` function.
        options : tuple of str
            NVRTC's. Definitions and ``--fmad`` count here, the rest is for a real device.

        Returns
        -------
        callable
            ``launch(grid, block, args, shared_memory=0)``.
        """
        if not re.search(rf"\b{re.escape(entry)}\b", source):
            raise CudaFault(f"the source has no kernel {entry!r}")
        kept = [o.replace("--define-macro=", "-D") for o in options]
        kept = [o for o in kept if o.startswith(("-D", "-U"))]
        if {"--fmad=false", "-fmad=false"} & set(options):
            kept.append("-ffp-contract=off")
        arch = self.capability[0] * 100 + self.capability[1] * 10
        run = build.library(translate.translate(source, entry, arch), tuple(kept)).gpuconv_launch
        run.restype = ctypes.c_char_p
        run.argtypes = (ctypes.POINTER(_Launch), ctypes.POINTER(ctypes.c_uint), ctypes.c_uint)

        def launch(grid, block, args, shared_memory=0):
            self._launch(run, _three(grid, "grid"), _three(block, "block"), tuple(args), int(shared_memory))

        return launch

    def _launch(self, run, grid, block, args, dynamic):
        packed = [_pack(a) for a in args]
        count = len(packed)
        sizes = (ctypes.c_uint * max(count, 1))(*map(ctypes.sizeof, packed))
        pointers = (ctypes.c_void_p * max(count, 1))(*map(ctypes.addressof, packed))
        launch = _Launch(grid, block, dynamic, self.shared_memory, self.order, self.timeout, pointers)
        wrong = run(launch, sizes, count)
        runtime = build.runtime()
        self.launches += 1
        self.switches += runtime.emulator_switches()
        if wrong:
            address = runtime.emulator_fault_address()
            raise CudaFault(wrong.decode(errors="replace") + (_where(address, args) if address else ""))
        _check_margins(args)

"""Arrays at the edge of unreadable pages, filled with poison."""

import ctypes
import math
import mmap

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
POISON = 0xFF  # NaN in every floating type, -1 in every signed one


class Pages(mmap.mmap):
    """Pages between two that cannot be touched; the array is at addresses ``start`` to ``stop``."""

    start = stop = 0

    def margins(self):
        """The bytes of the pages before and behind the array."""
        first = ctypes.addressof(ctypes.c_char.from_buffer(self)) + mmap.PAGESIZE
        last = first + len(self) - 2 * mmap.PAGESIZE
        return ctypes.string_at(first, self.start - first), ctypes.string_at(self.stop, last - self.stop)


def guarded(shape, dtype, front=False, align=1):
    """
    A poisoned array that ends where memory ends.

    Parameters
    ----------
    shape, dtype
        As for ``numpy.empty``.
    front : bool
        Begin, rather than end, at an unreadable page.
    align : int
        The address of the first element is a multiple of this; the bytes that this leaves behind the last one
        are checked after each launch.

    Returns
    -------
    numpy.ndarray
    """
    shape = tuple(shape) if np.iterable(shape) else (int(shape),)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = Pages(-1, room + 2 * mmap.PAGESIZE)
    whole = np.frombuffer(pages, np.uint8)
    whole[mmap.PAGESIZE : -mmap.PAGESIZE] = POISON
    offset = mmap.PAGESIZE + (0 if front else (room - size) // align * align)
    pages.start = whole.ctypes.data + offset
    pages.stop = pages.start + size
    for guard in (0, mmap.PAGESIZE + room):
        if _libc.mprotect(whole.ctypes.data + guard, mmap.PAGESIZE, 0):  # PROT_NONE
            raise OSError(ctypes.get_errno(), "mprotect")
    return np.frombuffer(pages, dtype, math.prod(shape), offset).reshape(shape)


def pages_of(array):
    """The pages that a guarded array or any view of it lies in, or None."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return array if isinstance(array, Pages) else None

"""HDF5 as Keras writes it, read in Python: groups, arrays of floating-point numbers, text attributes.

The HDF5 library trusts what it reads: single flipped bits in a Keras file make it crash or loop for ever,
both seen. Here every address and size is held against the file's size before anything is read or made,
and no more is read, all in all, than an honest file can need.

Source of the definition: the HDF5 File Format Specification, version 3.0, of which h5py's default
(``libver="earliest"``: superblock 0, version 1 object headers, symbol tables, contiguous arrays) is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gpuconv.namespace import dtype_named
from gpuconv.weights._files import RANK_LIMIT, needed

__all__ = ["SIGNATURE", "Item", "Reader"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = 2**64 - 1
#: Bytes of everything but arrays that are read at most, parts read twice counted twice.
_STRUCTURE_LIMIT = 64 * 2**20
#: What a header message counts for beside its own bytes: one of a few bytes takes as much to keep.
_MESSAGE_COST = 128
#: Levels of a group's index: each has up to 32 times the entries of the one below.
_LEVEL_LIMIT = 8

# Types of header messages.
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0C, 0x10, 0x11

# IEEE formats, as (bytes, position and bits of the exponent, bits of the mantissa).
_FLOATS = {
    (2, 10, 5, 10): "float16",
    (2, 7, 8, 7): "bfloat16",
    (4, 23, 8, 23): "float32",
    (8, 52, 11, 52): "float64",
}


class _Message(NamedTuple):
    kind: int
    shared: bool
    data: bytes


class Reader:
    """An HDF5 file of `size` bytes, and what may still be read of it.

    Raises
    ------
    ValueError
        Here and in all that an `Item` does: if the file breaks off, contradicts itself, or is of a form
        that Keras does not write.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        # Every header is read once or twice, and all arrays together fit in the file.
        self._structure_left = min(_STRUCTURE_LIMIT, 4 * size + 4096)
        self._arrays_left = size
        self._heaps: dict[int, dict[int, bytes]] = {}
        start = self.structure(0, 96)
        if start[:8] != SIGNATURE:
            raise ValueError("it does not begin as HDF5 does")
        if start[8] != 0 or start[13:15] != b"\x08\x08":
            raise ValueError(
                "it is HDF5 of a newer form than Keras writes: load it in Keras and save it again, "
                "or rewrite it with h5repack --high=earliest"
            )
        base, end = _unpack("<Q8xQ", start, 24)
        if base != 0:
            raise ValueError("something was put before it")
        if end > size:
            raise ValueError(f"it should have {end} bytes and has {size}: it was cut off")
        self.root = Item(self, *_unpack("<Q", start, 64))

    def structure(self, address: int, count: int) -> bytes:
        """`count` bytes of anything but an array."""
        self.spend(count)
        return self._read(address, count)

    def spend(self, count: int) -> None:
        """Count what is read or copied: parts of a file may refer to others again and again."""
        self._structure_left -= count
        if self._structure_left < 0:
            raise ValueError("its structure is larger than any that Keras writes, or refers to itself")

    def contents(self, address: int, count: int) -> bytes:
        """`count` bytes of an array."""
        self._arrays_left -= count
        if self._arrays_left < 0:
            raise ValueError("its arrays are larger than the file")
        return self._read(address, count)

    def _read(self, address: int, count: int) -> bytes:
        if address + count > self._size:
            raise ValueError(f"it breaks off: {count} bytes should begin at {address} of {self._size}")
        self._file.seek(address)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it became shorter while it was read")
        return data

    def long_text(self, reference: bytes) -> bytes:
        """What a reference of a variable-length string, 16 bytes, refers to."""
        length, address, index = _unpack("<IQI", reference, 0)
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        text = self._heaps[address].get(index, b"")[:length]
        if len(text) != length:
            raise ValueError(f"a text of {length} bytes is not where it should be")
        self.spend(length)
        return text

    def _heap(self, address: int) -> dict[int, bytes]:
        signature, size = _unpack("<4s4xQ", self.structure(address, 16), 0)
        if signature != b"GCOL" or size < 16:
            raise ValueError("a collection of texts is not where it should be")
        data, at, objects = self.structure(address + 16, size - 16), 0, {}
        while at + 16 <= len(data):
            index, length = _unpack("<H6xQ", data, at)
            if index == 0:  # the space that is free
                break
            objects[index] = data[at + 16 : at + 16 + length]
            at += 16 + _padded(length)
        return objects


@dataclass(frozen=True)
class Item:
    """A group or an array of the file, at `address`."""

    reader: Reader
    address: int
    _opened: dict[str, Item] = field(default_factory=dict)
    """What was asked for before: a group is read once, however many arrays are taken from it."""

    @cached_property
    def children(self) -> dict[str, int]:
        """Names and addresses of what a group holds; nothing for an array."""
        tables = [message for message in self._messages if message.kind == _SYMBOL_TABLE]
        if not tables:
            return {}
        tree, heap = _unpack("<QQ", tables[0].data, 0)
        signature, size, data = _unpack("<4s4xQ8xQ", self.reader.structure(heap, 32), 0)
        if signature != b"HEAP":
            raise ValueError("the names of a group are not where they should be")
        return dict(self._symbols(tree, None, self.reader.structure(data, size)))

    def __contains__(self, name: str) -> bool:
        return name in self.children

    def __getitem__(self, path: str) -> Item:
        item = self
        for name in path.split("/"):
            if name not in item.children:
                raise ValueError(f"it has no {path!r} where that should be")
            item = item._opened.setdefault(name, Item(self.reader, item.children[name]))
        return item

    def texts(self, name: str) -> list[str] | None:
        """The attribute `name`, a text or several; None if there is no such attribute."""
        pieces = self._attributes.get(name)
        return None if pieces is None else self._texts(name, *pieces)

    def array(self) -> np.ndarray:
        """The numbers of an array; they must all be in the file, one after another."""
        kinds = {message.kind: message for message in self._messages}
        if kinds.keys() & {_FILTERS, _EXTERNAL}:
            raise ValueError("an array is compressed or in another file: save it plainly, as Keras does")
        wanted = [kinds.get(kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT)]
        space, kind, layout = (b"" if one is None or one.shared else one.data for one in wanted)
        if not (space and kind and layout):
            raise ValueError("a group is where an array should be, or an array is not described")
        dtype, shape = _dtype(kind), _shape(space)
        size = math.prod(shape) * dtype.itemsize
        return np.frombuffer(self._data(layout, size), dtype).reshape(shape).astype(dtype.newbyteorder("="))

    def _data(self, layout: bytes, size: int) -> bytes:
        version, where = _unpack("<BB", layout, 0)
        if version != 3 or where not in (0, 1):
            raise ValueError("an array is in chunks: save it plainly, as Keras does")
        if where == 0:
            stored, data = _unpack("<H", layout, 2)[0], layout[4:]
        else:
            (address, stored), data = _unpack("<QQ", layout, 2), b""
        if stored != size:
            raise ValueError(f"an array of {size} bytes takes {stored} in the file")
        if where == 0 or size == 0:
            return data[:size]
        if address == _UNDEFINED:
            raise ValueError(f"an array of {size} bytes is not in the file")
        return self.reader.contents(address, size)

    @cached_property
    def _attributes(self) -> dict[str, tuple[bytes, bytes, bytes]]:
        return dict(_attribute(message.data) for message in self._messages if message.kind == _ATTRIBUTE)

    @cached_property
    def _messages(self) -> list[_Message]:
        version, count, size = _unpack("<BxH4xI", self.reader.structure(self.address, 16), 0)
        if version != 1:
            raise ValueError("the header of a group or an array is not where it should be")
        blocks = [(self.address + 16, size)]
        messages: list[_Message] = []
        for address, length in blocks:  # which grows
            data, at = self.reader.structure(address, length), 0
            while at + 8 <= len(data):
                kind, size, flags = _unpack("<HHB", data, at)
                self.reader.spend(_MESSAGE_COST)
                if len(messages) == count:
                    raise ValueError("the header of a group or an array is longer than it says")
                message = _Message(kind, bool(flags & 2), data[at + 8 : at + 8 + size])
                if kind == _CONTINUATION:
                    blocks.append(_unpack("<QQ", message.data, 0))
                messages.append(message)
                at += 8 + size
        return messages

    def _symbols(self, address: int, level: int | None, names: bytes) -> Iterator[tuple[str, int]]:
        """The entries of the B-tree at `address`; `level` counts down to 0, so no tree contains itself."""
        signature, kind, found, used = _unpack("<4sBBH", self.reader.structure(address, 24), 0)
        if signature != b"TREE" or kind != 0 or level not in (None, found) or found > _LEVEL_LIMIT:
            raise ValueError("the index of a group is not where it should be")
        entries = self.reader.structure(address + 24, 16 * used)
        for (child,) in struct.iter_unpack("<8xQ", entries):
            if found > 0:
                yield from self._symbols(child, found - 1, names)
            else:
                yield from self._leaf(child, names)

    def _leaf(self, address: int, names: bytes) -> Iterator[tuple[str, int]]:
        signature, count = _unpack("<4s2xH", self.reader.structure(address, 8), 0)
        if signature != b"SNOD":
            raise ValueError("the entries of a group are not where they should be")
        for name, header, cached in struct.iter_unpack(
            "<QQI20x", self.reader.structure(address + 8, 40 * count)
        ):
            if cached == 2:
                raise ValueError("it has symbolic links, which Keras does not write")
            end = names.find(b"\0", name)
            if end < 0:
                raise ValueError("a name does not end")
            self.reader.spend(end - name)
            yield names[name:end].decode(), header

    def _texts(self, name: str, kind: bytes, space: bytes, data: bytes) -> list[str]:
        count = math.prod(_shape(space))
        if count == 0:  # NumPy's empty arrays, which have another type
            return []
        form, variable, size = _unpack("<BB2xI", kind, 0)
        fixed = form & 15 == 3
        if not fixed and (form & 15 != 9 or variable & 15 != 1 or size != 16):
            raise ValueError(f"its attribute {name!r} is no text")
        if size == 0 or count * size > len(data):
            raise ValueError(f"its attribute {name!r} breaks off")
        pieces = [data[at : at + size] for at in range(0, count * size, size)]
        texts = [piece.rstrip(b"\0") if fixed else self.reader.long_text(piece) for piece in pieces]
        return [text.decode() for text in texts]


def _attribute(data: bytes) -> tuple[str, tuple[bytes, bytes, bytes]]:
    """Name, and datatype, dataspace and contents, of an attribute message."""
    version, flags, *sizes = _unpack("<BBHHH", data, 0)
    if version not in (1, 2, 3) or (version > 1 and flags):
        raise ValueError("an attribute has a form that Keras does not write")
    at, pieces = 9 if version == 3 else 8, []
    for size in sizes:
        pieces.append(data[at : at + size])
        at += _padded(size) if version == 1 else size
    name, kind, space = pieces
    return name.rstrip(b"\0").decode(), (kind, space, data[at:])


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank, _, form = _unpack("<BBBB", space, 0)
    if version not in (1, 2) or rank > RANK_LIMIT:
        raise ValueError("the shape of an array is not one of HDF5")
    if version == 2 and form == 2:  # neither a shape nor contents
        return (0,)
    return _unpack(f"<{rank}Q", space, 8 if version == 1 else 4)


def _dtype(kind: bytes) -> np.dtype[Any]:
    form, order, size = _unpack("<BB2xI", kind, 0)
    name = None
    if form & 15 == 1:  # floating-point
        offset, bits, *fields = _unpack("<HHBBBB", kind, 8)
        exponent, exponent_bits, mantissa, mantissa_bits = fields
        if (offset, bits, mantissa, order & 64) == (0, 8 * size, 0, 0):
            name = _FLOATS.get((size, exponent, exponent_bits, mantissa_bits))
    elif form & 15 == 5 and size == 2:  # "opaque": how h5py writes the bfloat16 of ml_dtypes
        name = "bfloat16"
    big = form & 15 == 1 and order & 1
    if name is None or (big and name == "bfloat16"):  # which ml_dtypes has in one order of bytes only
        raise ValueError(f"an array is not of {', '.join(_FLOATS.values())}")
    if name == "bfloat16":
        needed("ml_dtypes")
    return np.dtype(dtype_named(np, name)).newbyteorder(">" if big else "<")


def _unpack(form: str, data: bytes, offset: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, offset)
    except struct.error as error:
        raise ValueError("a part of it is shorter than what it should hold") from error


def _padded(size: int) -> int:
    return -(-size // 8) * 8

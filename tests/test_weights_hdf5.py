"""The reader of HDF5, against h5py, which writes the files."""

import io
import time

import numpy as np
import pytest

import gpuconv
from gpuconv.layers import Conv1D, Input, Sequential
from gpuconv.weights._hdf5 import Reader
from tests.mutations import refusal

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install gpuconv[test]")


def read_all(path, names):
    with path.open("rb") as file:
        root = Reader(file, path.stat().st_size).root
        return [root[name].array() for name in names]


def texts(path, name):
    with path.open("rb") as file:
        return Reader(file, path.stat().st_size).root.texts(name)


def read(path, name):
    return read_all(path, [name])[0]


@pytest.fixture
def hdf5(tmp_path):
    """A function that writes a file with `write` and gives its path."""

    def make(write, **options):
        path = tmp_path / "file.h5"
        with h5py.File(path, "w", **options) as file:
            write(file)
        return path

    return make


def test_the_reader_equals_h5py(hdf5):
    rng = np.random.default_rng(3)
    arrays = {f"group {i}/{i % 7}/array": rng.standard_normal(rng.integers(0, 4, 3)) for i in range(300)}
    arrays = {name: array.astype(rng.choice(["<f2", "<f4", "<f8", ">f4"])) for name, array in arrays.items()}
    texts = {f"attribute {i}": "\N{SNOWMAN}" * int(rng.integers(300)) for i in range(40)}

    def write(file):
        for name, array in arrays.items():
            file[name] = array
        file["scalar"] = np.float32(3)
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        made = h5py.h5d.create(
            file.id, b"compact", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), compact
        )
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype="f4"))
        for name, text in texts.items():
            file.attrs[name] = text
        file.attrs["several"] = ["a", "bc", ""]
        file.attrs["fixed"] = np.array([b"a", b"bc"])
        file.attrs["none"] = np.array([])
        file.attrs["nothing"] = h5py.Empty("f4")

    path = hdf5(write)
    with path.open("rb") as file:
        root = Reader(file, path.stat().st_size).root
        for name, array in arrays.items():
            found = root[name].array()
            assert found.dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, array)
        assert root["scalar"].array() == 3
        np.testing.assert_array_equal(root["compact"].array(), [0, 1, 2])
        assert {name: root.texts(name) for name in texts} == {name: [text] for name, text in texts.items()}
        assert [root.texts(name) for name in ("several", "fixed", "none", "nothing", "missing")] == [
            ["a", "bc", ""], ["a", "bc"], [], [], None,
        ]  # fmt: skip
        assert "group 299" in root
        assert "group 300" not in root


def soft_link(file):
    file["a"] = h5py.SoftLink("/b")


def nothing(file):
    """A file without anything in it."""


REFUSED = {
    "chunks": (lambda f: f.create_dataset("a", (4,), "f4", chunks=(2,)), "an array is in chunks"),
    "compression": (lambda f: f.create_dataset("a", (4,), "f4", compression="gzip"), "is compressed or in"),
    "another file": (
        lambda f: f.create_dataset("a", (4,), "f4", external=[("/etc/passwd", 0, 16)]), "in another file",
    ),
    "a link": (soft_link, "symbolic links"),
    "integers": (lambda f: f.create_dataset("a", data=[1, 2]), "not of float16, bfloat16, float32, float64"),
    "texts": (lambda f: f.create_dataset("a", data=["x"]), "not of float16"),
    "a group": (lambda f: f.create_group("a"), "a group is where an array should be"),
    "nothing written": (
        lambda f: f.create_dataset("a", (10**9,), "f4"), "an array of 4000000000 bytes is not in the file",
    ),
    "nothing there": (nothing, "it has no 'a' where that should be"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_keras_does_not_write_is_refused(hdf5, case):
    write, message = REFUSED[case]
    path = hdf5(write)
    assert message in refusal(lambda path: read(path, "a"), path)


def test_other_forms_of_hdf5(hdf5, tmp_path):
    assert "HDF5 of a newer form than Keras writes" in refusal(gpuconv.load, hdf5(nothing, libver="latest"))
    assert "it does not begin as HDF5 does" in refusal(gpuconv.load, hdf5(nothing, userblock_size=512))
    whole = hdf5(nothing).read_bytes()
    path = tmp_path / "short.h5"
    path.write_bytes(whole[:-1])
    size = len(whole)
    assert f"should have {size} bytes and has {size - 1}: it was cut off" in refusal(gpuconv.load, path)
    path.write_bytes(whole[:24] + b"\1" + whole[25:])
    assert "something was put before it" in refusal(gpuconv.load, path)


def test_arrays_that_share_their_numbers_are_not_multiplied(hdf5):
    """A small file could ask for a lot of memory: each name is another array of the model."""

    def write(file):
        file["first"] = np.zeros(1000, "f4")
        for i in range(50):
            file[f"array {i}"] = file["first"]

    path = hdf5(write)
    assert "its arrays are larger than the file" in refusal(
        lambda path: read_all(path, [f"array {i}" for i in range(50)]), path
    )


def test_a_structure_that_refers_to_itself_ends(hdf5):
    """A header that continues where it began."""
    path = hdf5(lambda file: file.create_dataset("a", data=np.zeros(3, "f4")))
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        at = Reader(file, len(data)).root["a"].address + 16
    data[at : at + 24] = b"\x10\0\x10\0\0\0\0\0" + at.to_bytes(8, "little") + (24).to_bytes(8, "little")
    path.write_bytes(data)
    assert "is longer than it says" in refusal(lambda path: read(path, "a"), path)
    data[at - 14 : at - 12] = b"\xff\xff"  # the number of messages
    path.write_bytes(data)
    assert "refers to itself" in refusal(lambda path: read(path, "a"), path)


def test_messages_of_nothing_take_no_memory(hdf5):
    """A header of empty messages: what is made of each is many times what it takes in the file."""
    path = hdf5(lambda file: file.create_dataset("a", data=np.zeros(10**6, "f4")))
    data = bytearray(path.read_bytes())
    address = len(data) - 4 * 10**6
    data[address : address + 16] = b"\1\0\xff\xff\1\0\0\0" + (3 * 10**6).to_bytes(4, "little") + bytes(4)
    data[64:72] = address.to_bytes(8, "little")  # of the root
    path.write_bytes(data)
    message = refusal(lambda path: read(path, "a"), path, most=3 * 10**7)
    assert "is longer than it says" in message


def test_an_index_of_many_levels(hdf5):
    """Each would pass on all entries of the one below: they take no more levels than entries need."""
    path = hdf5(lambda file: file.create_dataset("a", data=np.ones(3, "f4")))
    data = path.read_bytes()
    at = data.index(b"TREE").to_bytes(8, "little")
    for level in range(1, 10):
        child, child_at = at, len(data)
        data += b"TREE\0" + bytes([level, 1, 0]) + b"\xff" * 16 + bytes(8) + child
        at = child_at.to_bytes(8, "little")
        path.write_bytes(data.replace(b"\x11\0\x10\0\0\0\0\0" + child, b"\x11\0\x10\0\0\0\0\0" + at))
        data = path.read_bytes()
        if level == 8:
            assert read(path, "a").sum() == 3
    assert "the index of a group is not where it should be" in refusal(lambda path: read(path, "a"), path)


def test_texts_that_share_their_letters_are_not_multiplied(hdf5):
    def write(file):
        file.attrs["long"] = "x" * 60_000
        file.attrs["many"] = ["y"] * 3000

    path = hdf5(write)
    data = path.read_bytes()
    attributes = Reader(io.BytesIO(data), len(data)).root._attributes
    long, many = (attributes[name][-1] for name in ("long", "many"))
    path.write_bytes(data.replace(many, long[:16] * 3000))
    assert "refers to itself" in refusal(lambda path: texts(path, "many"), path)


def test_names_that_share_their_letters_are_not_multiplied(hdf5):
    """Each name is an offset into one text: all of them may be parts of a long one."""

    def write(file):
        file.create_group("x" * 60_000)
        for i in range(1000):
            file.create_group(f"{i:04}")

    path = hdf5(write)
    data = path.read_bytes()
    at, changed = 0, bytearray(data)
    while (at := data.find(b"SNOD", at + 1)) > 0:
        for entry in range(int.from_bytes(data[at + 6 : at + 8], "little")):
            changed[at + 8 + 40 * entry : at + 16 + 40 * entry] = (8 + entry).to_bytes(8, "little")
    path.write_bytes(changed)
    assert "refers to itself" in refusal(lambda path: read(path, "a"), path, most=2 * 10**7)


def test_many_attributes_are_looked_at_once(hdf5):
    def write(file):
        for i in range(3000):
            file.attrs[f"layer_names{i}"] = ["a"]

    began = time.monotonic()
    model = Sequential([Input((None, 2)), Conv1D(1, 1)])
    message = refusal(lambda path: gpuconv.load(path, into=model), hdf5(write), most=10**7)
    assert "written by Keras 1" in message
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GCOL", b"gcol", "a collection of texts is not where it should be"),
        (b"TREE", b"tree", "the index of a group is not where it should be"),
        (b"SNOD", b"snod", "the entries of a group are not where they should be"),
        (b"HEAP", b"heap", "the names of a group are not where they should be"),
        (b"\x01\0\x05\0", b"\x07\0\x05\0", "an attribute has a form that Keras does not write"),
        (b"text\0\0\0\0\x19", b"text\0\0\0\0\x10", "its attribute 'text' is no text"),
        (b"letter\0\0", b"lettersx", "a name does not end"),
        (b"\x11\0\x10\0", b"\x11\0\x08\0", "a group or an array is longer than it says"),
        (b"\x05\0\x14\0\x08", b"\x05\0\x14\0\0", "a part of it is shorter than what it should hold"),
        (b"\2" + bytes(7) + b"\2" + bytes(7) + b"ab", b"\x09" + bytes(15) + b"ab", "'fixed' breaks off"),
    ],
)
def test_parts_that_are_not_where_they_should_be(hdf5, old, new, message):
    def write(file):
        file.attrs["text"] = "x"
        file.attrs.create("fixed", np.array([b"ab", b"c"]))
        file["letter"] = np.zeros(3, "f4")

    path = hdf5(write)
    data = path.read_bytes()
    assert old in data
    if new == b"lettersx":
        start = data.index(old)
        data = data.replace(data[start : start + 80], new + b"x" * 72)
    path.write_bytes(data.replace(old, new))

    def both(path):
        texts(path, "text")
        texts(path, "fixed")
        read(path, "letter")

    assert message in refusal(both, path)


def test_a_file_that_becomes_shorter():
    with pytest.raises(ValueError, match="it became shorter while it was read"):
        Reader(io.BytesIO(bytes(90)), 1000)


def test_a_huge_nothing(hdf5):
    """No number at all, in a shape that NumPy does not have."""
    path = hdf5(lambda file: file.create_dataset("a", (0, 3), "f4"))
    data = path.read_bytes()
    path.write_bytes(data.replace(bytes(8) + (3).to_bytes(8, "little"), bytes(8) + b"\xff" * 8))
    with pytest.raises(ValueError, match="dimension exceeded"):
        read(path, "a")

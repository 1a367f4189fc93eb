"""Damaged and lying files: seeded mutations of sound ones, and what must come of each."""

import copy
import io
import json
import math
import re
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import gpuconv

#: Sizes that a file cannot have, and some that it can.
_SIZES = (0, 1, 255, 2**31, 2**32, 2**40, 2**63, 2**64 - 1)
_VALUES = (
    *(None, True, 0, -1, 1.5, 10**400, 2**40, float("inf"), float("nan"), "", "x", "Conv1D", "Sequential"),
    *([], [0], [2**40], [None, None], [[]], {}, {"class_name": "x", "config": {}}),
    *({"module": 5, "class_name": "x"}, {"class_name": ["x"], "config": 1}, "Lambda"),
)  # fmt: skip


def mutated(rng, data):
    """`data` cut off, with bits flipped, with another size, or with a part where it does not belong."""
    made = bytearray(data)
    at = int(rng.integers(len(made)))
    kind = rng.integers(5)
    if kind == 0:
        del made[at:]
    elif kind == 1:
        for place in rng.integers(len(made), size=rng.integers(1, 6)):
            made[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        made[at : at + 8] = _SIZES[rng.integers(len(_SIZES))].to_bytes(8, "little")
    elif kind == 3:
        other, length = int(rng.integers(len(made))), int(rng.integers(1, 64))
        made[at : at + length] = made[other : other + length]
    else:
        printable = [place for place, byte in enumerate(made) if 32 <= byte < 127]
        made[printable[rng.integers(len(printable))]] = b'0123456789[]{},"-xN'[rng.integers(19)]
    return bytes(made)


def json_mutated(rng, value):
    """`value` with an entry replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    outer, key = places[rng.integers(len(places))]
    kind = rng.integers(4)
    if kind == 0:
        del outer[key]
    elif kind == 1 and isinstance(outer, list):
        outer.append(copy.deepcopy(outer[key]))
    elif kind == 1:
        outer[f"{key}x"] = outer.pop(key)
    else:
        outer[key] = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
    return value


def _places(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def members_of(data):
    """The members of a zip archive, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def zip_mutated(rng, data):
    """A zip archive with a member mutated, or with the archive itself mutated."""
    members = members_of(data)
    name = list(members)[rng.integers(len(members))]
    kind = rng.integers(4)
    if kind == 0:
        return mutated(rng, data)
    if kind == 1:
        members[name] = data  # an archive in the archive
    elif kind == 2 and name.endswith(".json"):
        members[name] = json.dumps(json_mutated(rng, json.loads(members[name]))).encode()
    else:
        members[name] = mutated(rng, members[name])
    return zipped(members)


def run_if_small(model):
    """Run a model on zeros, unless a mutation made it large, or makes it compute nothing."""
    shapes = [tuple(2 if n is None else n for n in model.input_shape)]
    for layer in model.layers:
        shapes.append(layer.compute_output_shape(shapes[-1]))
    # A length in the configuration that no shape shows, such as the dilation of causal padding.
    hidden = re.search(r"\d{6}", str(model.get_config()))
    if all(0 < math.prod(shape) < 10**5 for shape in shapes) and not hidden:
        assert model(np.zeros(shapes[0])).shape == shapes[-1]


def check_refusals(load, path, mutate, data, seeds):
    """Load mutations of `data`: each gives a model that runs, or the one error, within seconds.

    `load` is given the path and returns how often the file was sound.
    """
    began, sound = time.monotonic(), 0
    for seed in seeds:
        path.write_bytes(mutate(np.random.default_rng(seed), data))
        try:
            # Damaged numbers may be those that warn when they are cast.
            with np.errstate(all="ignore"):
                load(path)
            sound += 1
        except ValueError as error:
            if not str(error).startswith("Expected ") or path.name not in str(error):
                pytest.fail(f"seed {seed}: {error}")
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert time.monotonic() - began < 0.2 * len(seeds) + 5
    return sound


def refusal(load, path, most=10**7):
    """The message with which `load` refuses `path`, having taken at most so many bytes of memory."""
    tracemalloc.start()
    try:
        load(path)
    except ValueError as error:
        taken = tracemalloc.get_traced_memory()[1]
        assert taken <= most, taken
        return str(error)
    finally:
        tracemalloc.stop()
    return pytest.fail(f"{path} was not refused")


def filling(model):
    """What loads a file into `model`, and asserts that one which is refused leaves no weight in it."""
    zeros = [0 * weight for weight in model.get_weights()]

    def load(path):
        model.set_weights(zeros)
        try:
            gpuconv.load(path, into=model)
        except ValueError:
            assert not any(weight.any() for weight in model.weights)
            raise

    return load

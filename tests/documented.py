"""What tests/make_documented.py wrote down, and how far from it our layers may be."""

import json
import math

import numpy as np
import pytest

import gpuconv
from gpuconv import regularizers
from tests import oracle
from tests.bounds import assert_within_bound, noting
from tests.make_documented import FOLDER, case, decoded, observe
from tests.reference import transposed_axis

STAGES = ("making", "building", "calling")
#: These have a slope of at most 1 and round nothing, so that the bound of the sum holds for them too.
EXACT = (None, "linear", "relu", "relu6")


class Record:
    """One file. `differing` names the cases in which we differ on purpose, by section, and says why."""

    def __init__(self, file, differing):
        written = json.loads((FOLDER / file).read_text(encoding="utf-8"))
        arrays = written["arrays"]
        self.makers, self.public, self.methods = written["makers"], written["public"], written["methods"]
        self.signature = dict(written["signature"])
        self.update = _unshared(written["update"], arrays)
        self.configs = decoded(written["configs"])
        self.cases = {
            section: {call["case"]: _restored(call, arrays) for call in calls}
            for section, calls in written["cases"].items()
        }
        self.differing = differing
        given = [(entry["kind"], values(entry["array"])) for entry in _unshared(written["given"], arrays)]
        self._given = {(kind, array.shape): array for kind, array in given}

    def array(self, kind, shape):
        """The array that the maker was given."""
        return self._given[kind, tuple(shape)]

    def agreeing(self, section):
        """Parameters of a test: the cases in which we do as the maker does."""
        others = self.differing.get(section, {})
        calls = self.cases[section].items()
        return [pytest.param(call, id=name) for name, call in calls if name not in others]

    def differences(self):
        """Parameters of a test: all other cases."""
        named = [(section, name) for section, names in self.differing.items() for name in names]
        return [pytest.param(self.cases[s][name], id=f"{s}-{name}") for s, name in named]

    def seen(self, section, name):
        """What the maker did."""
        return self.cases[section][name]["seen"]

    def ours(self, call):
        """What our layer does."""
        gpuconv.config.set_image_data_format(call["default_format"] or "channels_last")
        try:
            return observe(gpuconv, call, self.array, seed=1)
        finally:
            gpuconv.config.set_image_data_format(None)

    def check(self, call):
        """Assert that our layer does what the maker's did."""
        self.compare(self.ours(call), call)

    def compare(self, seen, call):
        """Assert that `seen` is what was written down of `call`: an error as early as there, or earlier."""
        wanted = call["seen"]
        with noting(call["settings"]):
            if "raises" in wanted:
                error, at = seen.get("raises", ("nothing", "calling"))
                assert error == wanted["raises"][0]
                assert STAGES.index(at) <= STAGES.index(wanted["raises"][1])
                return
            assert "raises" not in seen, seen["raises"]
            for what in ("attributes", "weights", "trained", "shapes", "model"):
                assert _listed(seen.get(what)) == wanted.get(what), what
            if isinstance(wanted["output"], dict):
                self._compare_output(seen["output"], call)
            else:
                assert _listed(seen["output"]) == wanted["output"]
            for mine, theirs in zip(seen.get("drawn", []), wanted.get("drawn", []), strict=True):
                _compare_drawn(mine, theirs)
            for mine, theirs in zip(seen.get("projected", []), wanted.get("projected", []), strict=True):
                _compare_projected(mine, theirs)
            self._compare_losses(seen.get("losses", []), call)

    def magnitude(self, call):
        """What the layer makes of the absolute values of everything, and how much it sums for one output."""
        kernel, *bias = map(np.abs, self._weights(call))
        x, first = np.abs(self.array("x", call["x"])), _is_first(call)
        x = np.swapaxes(x, 1, 2) if first else x
        k, s, d = (_one(call, name) for name in ("kernel_size", "strides", "dilation_rate"))
        padding = call["settings"].get("padding", "valid").lower()
        length, left = transposed_axis(x.shape[1], k, s, d, padding, _one(call, "output_padding", None))
        y = oracle.conv_transpose(x, kernel, (s,), (d,), (left,), (length,)) + sum(bias)
        return np.swapaxes(y, 1, 2) if first else y, k * x.shape[2] + len(bias)

    def _weights(self, call):
        if "drawn" in call["seen"]:
            return [values(weight) for weight in call["seen"]["drawn"]]
        return [self.array("weight", shape) for shape in call["seen"]["weights"]]

    def _compare_output(self, mine, call):
        theirs, activation = call["seen"]["output"], call["settings"].get("activation")
        assert mine["dtype"] == theirs["dtype"]
        assert list(mine["shape"]) == theirs["shape"]
        if "float16" in theirs["dtype"] or not theirs["values"]:
            return  # of halves they round sums that we do not: tests/bounds.py says how ours are made
        exact = values(theirs)
        magnitude, terms = self.magnitude(call)
        if activation not in EXACT:
            magnitude = np.full_like(exact, _behind(activation, magnitude.max(), np.abs(exact).max(), terms))
        assert_within_bound(values(mine), exact, magnitude, terms, theirs["dtype"])

    def _compare_losses(self, losses, call):
        theirs, settings = call["seen"].get("losses", []), call["settings"]
        assert len(losses) == len(theirs)
        for index, (mine, exact) in enumerate(zip(map(values, losses), map(values, theirs), strict=True)):
            magnitude, terms = np.abs(exact), max(map(np.size, self._weights(call))) + 2
            if index == 0 and settings.get("activity_regularizer") is not None:
                # The error of each output times the slope of its penalty, l1 + 2 l2 |y|.
                rule = regularizers.get(settings["activity_regularizer"])
                y, products = self.magnitude(call)
                slope = getattr(rule, "l1", 0) + 2 * getattr(rule, "l2", 0) * y
                magnitude, terms = np.asarray((slope * y).sum() / len(y)), products + y.size + 2
            assert_within_bound(mine, exact, magnitude, terms, theirs[index]["dtype"])


def values(entry):
    """The array of an entry of the file."""
    dtype = np.float32 if "float16" in entry["dtype"] else entry["dtype"]
    return np.asarray(entry["values"], dtype).reshape(entry["shape"])


def _behind(activation, magnitude, largest, terms):
    """`magnitude` as the bound needs it behind `activation`.

    No slope of the catalogue's exceeds 2 but those of exponential, its value, and glu, `a * sigmoid(b)`. What
    an activation itself may err by is that of tests/test_activations.py: 32 eps of its value and 8 eps.
    """
    slope = {"exponential": largest, "glu": 1 + magnitude / 4}.get(activation, 2)
    return slope * magnitude + (32 * largest + 8) / (terms + 1)


def _compare_drawn(mine, theirs):
    if "values" in theirs:
        np.testing.assert_array_equal(values(mine), values(theirs))
        return
    assert list(mine["shape"]) == theirs["shape"]
    # Five standard deviations of what two estimates differ by; the file has four digits.
    near = 5 * theirs["deviation"] * math.sqrt(2 / math.prod(theirs["shape"]))
    assert abs(mine["mean"] - theirs["mean"]) <= near
    assert abs(mine["deviation"] - theirs["deviation"]) <= near + 1e-3 * theirs["deviation"]


def _compare_projected(mine, theirs):
    assert (mine is None) == (theirs is None)
    if theirs is not None:
        # A norm of so many squares, its root, and three operations more.
        exact = values(theirs)
        assert_within_bound(values(mine), exact, np.abs(exact), exact.size + 4, theirs["dtype"])


def _unshared(part, arrays):
    """`part` with the arrays that it names by their numbers."""
    if isinstance(part, dict):
        if set(part) == {"array"} and isinstance(part["array"], int):
            return {"dtype": "float32", **arrays[part["array"]]}
        return {name: _unshared(entry, arrays) for name, entry in part.items()}
    return [_unshared(entry, arrays) for entry in part] if isinstance(part, list) else part


def _restored(call, arrays):
    """A call as the maker made it."""
    others = {name: call[name] for name in ("x", "weights", "default_format") if name in call}
    usual = case(call["case"], **decoded(call["settings"]))
    return {**usual, **others, "seen": _unshared(call["seen"], arrays)}


def _listed(value):
    """`value` with lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is_first(call):
    return (call["settings"].get("data_format") or call["default_format"] or "").lower() == "channels_first"


def _one(call, name, default=1):
    value = call["settings"].get(name, default)
    return value[0] if isinstance(value, list | tuple) else value

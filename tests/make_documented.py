"""What the documented layers really do: runs Keras 3 on JAX and Keras 2 on TensorFlow, and writes it down.

    python -m tests.make_documented

Writes tests/data/documented/keras.json where keras and jax are installed and tf.json where tensorflow and
tf_keras are (or a TensorFlow whose own Keras is 2): they may live in two environments. Everything is seeded,
so the same versions write the same files. `cases` are the calls, in the order of the pages; `observe` makes
one of them with any library whose layers read like Keras', ours too.
"""

import importlib
import importlib.util
import inspect
import json
import os
import platform
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "documented"
SHAPE = (2, 4, 3)  # samples, steps, channels
ONE = (1, 3, 3)
FIRST = (2, 3, 4)  # channels_first
#: What is called when an item says nothing else.
USUAL = {"filters": 2, "kernel_size": 3}

# --- the calls -----------------------------------------------------------------------------------


def case(name, /, *, x=SHAPE, weights="given", default_format=None, **settings):
    """One call. `weights` are "given" by `array`, or as the "argument" of that name, or "drawn" by the
    initializers; "large" is drawn, but too much to keep: only its statistics are.
    """
    return {
        "case": name,
        "x": x,
        "weights": weights,
        "default_format": default_format,
        "settings": {**USUAL, **settings},
    }


def named(argument, *values):
    """One call per value, called after it."""
    return [case(repr(value), **{argument: value}) for value in values]


def config(class_name, **settings):
    return {"class_name": class_name, "config": settings}


def called(entry):
    """A name for an identifier of a catalogue: a string, a config or None."""
    if not isinstance(entry, dict):
        return str(entry)
    return f"{entry['class_name']}({', '.join(f'{name}={value}' for name, value in entry['config'].items())})"


# Kernels below, at and above the stride, odd and even.
LENGTHS = [(1, 1), (1, 2), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3), (5, 2), (2, 3), (7, 3)]
EXTRA = [(3, 2, 0), (3, 2, 1), (4, 2, 0), (4, 2, 1), (2, 3, 2), (5, 3, 0), (5, 3, 2), (4, 3, 1)]


def lengths(padding):
    for k, s in LENGTHS:
        yield case(f"{padding}-k{k}-s{s}", x=ONE, padding=padding, kernel_size=k, strides=s)


def output_paddings(padding):
    for k, s, p in EXTRA:
        sizes = {"padding": padding, "kernel_size": k, "strides": s, "output_padding": p}
        yield case(f"{padding}-k{k}-s{s}-p{p}", x=ONE, **sizes)


def dilations(padding):
    for k, d in [(3, 2), (4, 2), (2, 3)]:
        yield case(f"{padding}-k{k}-d{d}", x=ONE, padding=padding, kernel_size=k, dilation_rate=d)


def formats():
    for name, data_format, default in [
        ("last", "channels_last", None),
        ("first", "channels_first", None),
        ("mixed-case", "Channels_First", None),
        ("None", None, None),
        ("None-while-first-is-the-default", None, "channels_first"),
        ("last-while-first-is-the-default", "channels_last", "channels_first"),
    ]:
        x = FIRST if (data_format or default or "").lower() == "channels_first" else SHAPE
        yield case(name, data_format=data_format, default_format=default, x=x, strides=2)
    for padding in ("valid", "same"):
        yield case(f"first-{padding}", data_format="channels_first", padding=padding, x=FIRST)
    yield from (case(repr(word), data_format=word) for word in ("NWC", "channels_middle", 3))


ACTIVATIONS = [
    *("linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "softplus", "softsign", "squareplus"),
    *("sparse_plus", "soft_shrink", "hard_shrink", "tanh_shrink", "tanh", "hard_tanh", "sigmoid"),
    *("log_sigmoid", "sparse_sigmoid", "hard_sigmoid", "silu", "swish", "hard_silu", "hard_swish", "gelu"),
    *("mish", "exponential", "softmax", "log_softmax", "sparsemax", "glu", "threshold"),
]
INITIALIZERS = [
    *("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal"),
    *("random_normal", "normal", "random_uniform", "uniform", "truncated_normal", "variance_scaling"),
    *("orthogonal", "GlorotUniform", "HeNormal"),
]
FIXED = [
    *("zeros", "Ones", "zero", "one", "constant"),
    config("Constant", value=0.25),
    config("constant", value=-1.5),
]
REGULARIZERS = [
    *("l1", "l2", "l1_l2", "l1l2", "L1", "L2", "L1L2", None, "l3"),
    config("L1", l1=0.5),
    config("L2", l2=0.25),
    config("L1L2", l1=0.5, l2=0.25),
    config("l2", l2=0.125),
]
CONSTRAINTS = [
    *("max_norm", "min_max_norm", "non_neg", "unit_norm", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
    *("maxnorm", "nonneg", "unitnorm", None, "max"),
    config("MaxNorm", max_value=0.5, axis=[0, 2]),
    config("MinMaxNorm", min_value=0.5, max_value=1.0, rate=0.5, axis=0),
    config("UnitNorm", axis=[0, 2]),
]


def initial(argument):
    # What is drawn: 10,240 values of a kernel, 4,096 of a bias.
    large = {"filters": 32, "kernel_size": 5, "x": (1, 2, 64), "weights": "large"}
    other, names = {}, INITIALIZERS
    if argument == "bias_initializer":
        large = {"filters": 4096, "kernel_size": 1, "x": (1, 2, 1), "weights": "large"}
        other, names = {"kernel_initializer": "ones"}, ["glorot_uniform", "he_normal", "normal", "orthogonal"]
    yield from (case(name, **large, **{argument: name}) for name in names)
    yield case("None", **large, **{argument: None})
    for fixed in FIXED:
        yield case(called(fixed), x=ONE, weights="drawn", **other, **{argument: fixed})
    yield case("unknown", **{argument: "ones_and_zeros"})
    yield case("a-number", **{argument: 3})


def penalties(argument):
    for entry in REGULARIZERS:
        yield case(called(entry), **{argument: entry})
    if argument == "activity_regularizer":
        yield case("one-sample", x=ONE, activity_regularizer="l2")
        every = {"kernel_regularizer": "l1", "bias_regularizer": "l2", "activity_regularizer": "l1"}
        yield case("all-three", **every)
        yield case("all-three-frozen", trainable=False, **every)
        yield case("after-the-activation", activity_regularizer="l1", activation="relu")


def projections(argument):
    for entry in CONSTRAINTS:
        axes = entry["config"]["axis"] if isinstance(entry, dict) else 0
        if axes == 0 or argument == "kernel_constraint":  # a bias has one axis
            yield case(called(entry), **{argument: entry})


def arguments():
    """What the layer's base takes; the pages name `input_shape` and hide the rest behind **kwargs."""
    yield case("input_shape", input_shape=(4, 3))
    yield case("input_shape-free", input_shape=(None, 3))
    yield case("input_shape-channels_first", x=FIRST, input_shape=(3, 4), data_format="channels_first")
    yield case("batch_size", input_shape=(4, 3), batch_size=2)
    yield case("batch_size-alone", batch_size=2)
    yield case("batch_input_shape", batch_input_shape=(2, 4, 3))
    yield case("batch_input_shape-and-input_shape", batch_input_shape=(2, 4, 3), input_shape=(7, 3))
    yield case("input_dim", input_dim=3)
    yield case("name", name="up")
    yield case("name-with-slash", name="up/down")
    yield case("name-empty", name="")
    yield case("name-number", name=3)
    for dtype in (None, "float32", "float64", "float16", "bfloat16", "int32", "mixed_float16", "flt"):
        yield case(f"dtype-{dtype}", dtype=dtype)
    for trainable in (True, False):
        yield case(f"trainable-{trainable}", trainable=trainable, kernel_regularizer="l2")
    yield case("weights", weights="argument")
    yield case("weights-without-bias", weights="argument", use_bias=False)
    yield case("groups", groups=2, filters=4, x=(2, 4, 4))
    yield case("groups-1", groups=1)
    yield case("autocast", autocast=False)
    yield case("implementation", implementation=1)
    yield case("unknown", colour="red")


def cases():
    """All calls by the item of the pages that they show, in the pages' order."""
    whole = np.int64
    return {
        "filters": [
            *named("filters", 1, 4, 4.0, 2.5, 0, -1, "4", None, (4,)),
            case("numpy", filters=whole(4)),
        ],
        "kernel_size": [
            *named("kernel_size", 1, 2, 7, (3,), [3], 0, -1, (0,), (3, 3), [], 3.0, "3", None),
            case("numpy", kernel_size=whole(3)),
            case("numpy-inside", kernel_size=(whole(3),)),
        ],
        "strides": [
            *named("strides", 1, 2, 3, 5, (2,), [2], 0, -1, (0,), (2, 2), 2.0, "2", None),
            case("numpy", strides=whole(2)),
        ],
        "padding": [
            *lengths("valid"),
            *lengths("same"),
            *named("padding", "VALID", "Same", "SAME", "causal", "Causal", "full", "reflect", "", None, 1),
            case("a-pair", padding=(1, 1)),
        ],
        "output_padding": [
            *output_paddings("valid"),
            *output_paddings("same"),
            *(case(repr(p), strides=3, output_padding=p) for p in (None, 0, (1,), [1])),
            *(case(f"wrong-{p!r}", strides=2, output_padding=p) for p in (2, 3, -1, (1, 1), 1.0, "1", (2,))),
            case("without-stride", output_padding=1),
            case("zero-without-stride", output_padding=0),
            case("numpy", strides=2, output_padding=whole(1)),
        ],
        "data_format": list(formats()),
        "dilation_rate": [
            *named("dilation_rate", 1, (1,), [1], 2, 3, (2,), [2], 0, -1, (2, 2), 2.0, "2", None),
            *dilations("valid"),
            *dilations("same"),
            case("with-strides", strides=2, dilation_rate=2),
            case("with-strides-of-1", strides=1, dilation_rate=2),
            case("1-with-strides", strides=2, dilation_rate=1),
            case("with-output-padding", dilation_rate=2, output_padding=1),
            case("with-output-padding-0", dilation_rate=2, output_padding=0),
        ],
        "activation": [
            case("None", x=ONE, activation=None),
            *(case(name, x=ONE, activation=name) for name in ACTIVATIONS),
            case("relu-first", activation="relu", data_format="channels_first", x=FIRST),
            case("softmax-first", activation="softmax", data_format="channels_first", x=FIRST),
            case("appended-samples", activation="softplus", strides=3, kernel_size=1),
            case("unknown", activation="reluu"),
            case("a-number", activation=3),
        ],
        "use_bias": [
            *named("use_bias", True, False),
            case("False-with-initializer", use_bias=False, bias_initializer="ones", bias_regularizer="l2"),
            case("appended-samples", use_bias=True, strides=4, kernel_size=2),
        ],
        "kernel_initializer": list(initial("kernel_initializer")),
        "bias_initializer": list(initial("bias_initializer")),
        "kernel_regularizer": list(penalties("kernel_regularizer")),
        "bias_regularizer": list(penalties("bias_regularizer")),
        "activity_regularizer": list(penalties("activity_regularizer")),
        "kernel_constraint": list(projections("kernel_constraint")),
        "bias_constraint": list(projections("bias_constraint")),
        "kwargs": list(arguments()),
        "input shape": [
            *(case(str(x), x=x) for x in [(1, 1, 1), (3, 8, 2), (0, 4, 3), (2, 0, 3)]),
            *(case(str(x), x=x) for x in [(4, 3), (3,), (2, 2, 4, 3), (2, 4, None)]),
            case("first-None", x=(2, None, 4), data_format="channels_first"),
        ],
        "output shape": [
            case("example", filters=32, strides=2, activation="relu", x=(4, 10, 128), weights="large"),
        ],
    }


# --- making one of them --------------------------------------------------------------------------


def array(kind, shape):
    """A seeded array of few decimals, which are short to write."""
    rng = np.random.default_rng([2022, zlib.crc32(kind.encode()), *shape])
    return rng.standard_normal(shape).round(3)


def observe(library, call, array=array, **more):
    """What the Conv1DTranspose of `library` does with `call`: numbers, tuples, and arrays as `numbers`.

    A key that is missing was not reached, "raises" has the class of the error and where it came from.
    """
    settings, shape, weights = {**call["settings"], **more}, tuple(call["x"]), call["weights"]
    kind = library.layers.Conv1DTranspose
    seen, at = {}, "making"
    try:
        if weights == "argument":
            made = kind(**settings)
            made.build(shape)
            settings["weights"] = [array("weight", tuple(kept.shape)) for kept in made.weights]
        layer = kind(**settings)
        seen["attributes"] = attributes(layer, settings)
        at = "building"
        if weights == "argument":  # TensorFlow takes these when the layer is called, not in build
            layer(np.zeros(shape, np.float32))
        else:
            layer.build(shape)
        seen["weights"] = [plain(tuple(kept.shape)) for kept in layer.weights]
        if weights == "given":
            layer.set_weights([array("weight", kept) for kept in seen["weights"]])
        elif weights in ("drawn", "large"):
            seen["drawn"] = [(numbers if weights == "drawn" else statistics)(w) for w in layer.get_weights()]
        if "trainable" in settings:
            seen["trained"] = len(layer.trainable_weights)
        if any(name.endswith("_constraint") for name in settings):
            seen["projected"] = projected(layer)
        at = "calling"
        y = layer(np.asarray(np.ones(shape) if weights == "large" else array("x", shape), np.float32))
        seen["output"] = tuple(y.shape) if weights == "large" else numbers(y)
        if layer.losses:
            seen["losses"] = [numbers(loss) for loss in layer.losses]
    except Exception as error:
        seen["raises"] = (type(error).__name__, at)
    if "attributes" in seen:
        if shape != SHAPE or set(unusual(settings)) & SIZES:
            seen["shapes"] = [shape_after(layer, wanted) for wanted in free(shape, layer.data_format)]
        if {"input_shape", "batch_input_shape", "batch_size", "input_dim"} & set(settings):
            seen["model"] = model_shapes(library, settings)
    return seen


#: What decides the output's shape.
SIZES = {"filters", "kernel_size", "strides", "padding", "output_padding", "data_format", "dilation_rate"}


def attributes(layer, settings):
    """What the layer made of the sizes and words that it was given."""
    kept = {*SIZES, "use_bias", "trainable", "dtype", "name"}
    return {name: plain(getattr(layer, name)) for name in unusual(settings) if name in kept}


def unusual(settings):
    """What is not as in `USUAL`, types included."""
    return {n: value for n, value in settings.items() if n not in USUAL or repr(value) != repr(USUAL[n])}


def plain(value):
    """Tuples of Python's numbers."""
    if isinstance(value, list | tuple):
        return tuple(plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value


def free(shape, data_format):
    """`shape` without its samples and length, and of other ones."""
    if len(shape) != 3:
        return [shape]
    if data_format == "channels_first":
        return [(None, shape[1], None), (7, shape[1], 11)]
    return [(None, None, shape[2]), (7, 11, shape[2])]


def shape_after(layer, shape):
    """What the layer says of `shape`, or the class of its error."""
    try:
        return plain(tuple(layer.compute_output_shape(shape)))
    except Exception as error:
        return type(error).__name__


def model_shapes(library, settings):
    """What a Sequential of the one layer takes and makes; None while it does not know."""
    kind = library.Sequential if hasattr(library, "Sequential") else library.layers.Sequential
    try:
        model = kind([library.layers.Conv1DTranspose(**settings)])
        return [tuple(model.input_shape), tuple(model.output_shape)]
    except Exception:
        return None


def projected(layer):
    """What the constraints make of the weights that the layer has."""
    rules = [layer.kernel_constraint, *([layer.bias_constraint] if layer.use_bias else [])]
    kept = layer.get_weights()
    return [None if rule is None else numbers(rule(weight)) for rule, weight in zip(rules, kept, strict=True)]


def numbers(value):
    """An array as its shape, its dtype and its values, in the fewest digits that give them back."""
    value = np.asarray(value)
    values = [float(str(entry)) for entry in value.ravel()]
    return {"shape": value.shape, "dtype": value.dtype.name, "values": values}


def statistics(weight):
    """What is left of an array that is too large to keep."""
    weight = np.asarray(weight, np.float64)
    found = {"least": weight.min(), "most": weight.max(), "mean": weight.mean(), "deviation": weight.std()}
    return {"shape": weight.shape, **{name: float(f"{value:.4g}") for name, value in found.items()}}


# --- what the pages' inherited methods do --------------------------------------------------------


def methods(library):
    """What these calls return, as text, or the class of the error that they raise."""
    kind = library.layers.Conv1DTranspose
    kernel, bias, x = array("weight", (3, 2, 3)), array("weight", (2,)), np.ones(SHAPE, np.float32)

    def built(**settings):
        layer = kind(**USUAL, **settings)
        layer.build(SHAPE)
        return layer

    def frozen_later():
        layer = built(kernel_regularizer="l2", activity_regularizer="l2")
        layer.trainable = False
        return len(layer.trainable_weights), len(layer.non_trainable_weights)

    def losses_of(calls):
        layer = built(kernel_regularizer="l2", activity_regularizer="l1")
        for _ in range(calls):
            layer(x)
        return len(layer.losses)

    def set_weights(*weights):
        layer = built()
        layer.set_weights(weights)
        return [tuple(weight.shape) for weight in layer.get_weights()]

    def round_trip():
        layer = kind(**USUAL, strides=2, activation="relu", name="up")
        return kind.from_config(layer.get_config()).get_config() == layer.get_config()

    attempts = {
        "kernel before building": lambda: kind(**USUAL).kernel,
        "bias before building": lambda: kind(**USUAL).bias,
        "bias of a layer without": lambda: built(use_bias=False).bias,
        "weights before building": lambda: kind(**USUAL).weights,
        "get_weights before building": lambda: kind(**USUAL).get_weights(),
        "count_params before building": lambda: kind(**USUAL).count_params(),
        "count_params": lambda: built().count_params(),
        "set_weights before building": lambda: kind(**USUAL).set_weights([kernel, bias]),
        "set_weights": lambda: set_weights(kernel, bias),
        "set_weights of too few": lambda: set_weights(kernel),
        "set_weights of another shape": lambda: set_weights(kernel, kernel),
        "set_weights of lists": lambda: set_weights(kernel.tolist(), bias.tolist()),
        "trainable set later": frozen_later,
        "losses before a call": lambda: losses_of(0),
        "losses after one call": lambda: losses_of(1),
        "losses after two calls": lambda: losses_of(2),
        "from_config of get_config": round_trip,
        "from_config of an unknown key": lambda: kind.from_config({**USUAL, "colour": "red"}),
        "compute_output_shape before building": lambda: tuple(kind(**USUAL).compute_output_shape(SHAPE)),
        "compute_output_shape of a list": lambda: tuple(built().compute_output_shape([None, 4, 3])),
        "build twice": lambda: built().build(SHAPE),
        "convolution_op": lambda: tuple(built().convolution_op(x, np.float32(kernel)).shape),
        "call in training": lambda: tuple(built()(x, training=True).shape),
        "call on other channels": lambda: built()(np.ones((2, 4, 4), np.float32)),
        "call on two axes": lambda: built()(np.ones((4, 3), np.float32)),
        "call on four axes": lambda: built()(np.ones((1, 2, 4, 3), np.float32)),
        "call on float64": lambda: np.asarray(built()(x.astype("float64"))).dtype.name,
        "call on integers": lambda: np.asarray(built()(x.astype("int32"))).dtype.name,
        "call on lists": lambda: tuple(built()(x.tolist()).shape),
        "second name": lambda: library.layers.Convolution1DTranspose is kind,
    }
    return {name: attempt(function) for name, function in attempts.items()}


def attempt(function):
    try:
        return {"returns": repr(function())}
    except Exception as error:
        return {"raises": type(error).__name__}


def update(library, tensor):
    """A kernel with a constraint after one step of gradient descent."""
    layer = library.layers.Conv1DTranspose(**USUAL, kernel_constraint="max_norm")
    layer.build(SHAPE)
    kernel, gradient = np.float32(array("weight", (3, 2, 3))), np.float32(array("gradient", (3, 2, 3)))
    layer.set_weights([kernel, np.zeros(2)])
    library.optimizers.SGD(0.5).apply_gradients([(tensor(gradient), layer.kernel)])
    return {
        "constraint": "max_norm",
        "rate": 0.5,
        "kernel": numbers(kernel),
        "gradient": numbers(gradient),
        "updated": numbers(layer.get_weights()[0]),
    }


CONFIGURED = [
    {**USUAL, "name": "plain"},
    {**USUAL, "dilation_rate": 2, "activation": "gelu", "use_bias": False, "name": "dilated"},
    {
        "filters": 4,
        "kernel_size": 5,
        "strides": 2,
        "padding": "SAME",
        "output_padding": 1,
        "data_format": "channels_first",
        "activation": "relu",
        "kernel_initializer": "he_normal",
        "bias_initializer": "ones",
        "kernel_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": config("L2", l2=0.5),
        "kernel_constraint": "max_norm",
        "bias_constraint": "non_neg",
        "dtype": "float64",
        "trainable": False,
        "name": "full",
    },
]


def signature(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    named = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return [[p.name, "required" if p.default is inspect.Parameter.empty else p.default] for p in named]


# --- the two makers ------------------------------------------------------------------------------


def keras_3():
    """Keras 3 on JAX, its versions, and a maker of its tensors; None where they are not installed."""
    if not (importlib.util.find_spec("keras") and importlib.util.find_spec("jax")):
        return None
    os.environ["KERAS_BACKEND"] = "jax"
    jax, keras = importlib.import_module("jax"), importlib.import_module("keras")
    jax.config.update("jax_enable_x64", True)
    if not keras.__version__.startswith("3."):
        return None
    return keras, {"keras": keras.__version__, "jax": jax.__version__}, jax.numpy.asarray


def keras_2():
    """Keras 2 on TensorFlow: tf_keras, or what TensorFlow up to 2.15 calls tf.keras."""
    if not importlib.util.find_spec("tensorflow"):
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tensorflow = importlib.import_module("tensorflow")
    apart = importlib.util.find_spec("tf_keras") is not None
    keras = importlib.import_module("tf_keras") if apart else tensorflow.keras
    if not keras.__version__.startswith("2."):
        return None
    return keras, {"tensorflow": tensorflow.__version__, "keras": keras.__version__}, tensorflow.constant


def record(library, versions, tensor):
    """All that a file holds."""
    given = {}

    def kept(kind, shape):
        return given.setdefault((kind, shape), array(kind, shape))

    settings = library.config if hasattr(library, "config") else library.backend
    layer = library.layers.Conv1DTranspose(**USUAL)
    layer.build(SHAPE)
    observed = {}
    for section, calls in cases().items():
        observed[section] = []
        for call in calls:
            library.utils.set_random_seed(2022)
            settings.set_image_data_format(call["default_format"] or "channels_last")
            observed[section].append({**call, "seen": observe(library, call, kept)})
    settings.set_image_data_format("channels_last")
    kind = library.layers.Conv1DTranspose
    return {
        "makers": {**versions, "numpy": np.__version__, "python": platform.python_version()},
        "signature": signature(kind),
        "public": [name for name in dir(layer) if not name.startswith("_")],
        "methods": methods(library),
        "update": update(library, tensor),
        "configs": [{"settings": one, "config": kind(**one).get_config()} for one in CONFIGURED],
        "given": [{"kind": kind, "array": numbers(values)} for (kind, _), values in given.items()],
        "cases": observed,
    }


def encoded(value):
    """`value` for JSON, which knows no tuples and no NumPy integers."""
    if isinstance(value, tuple):
        return {"tuple": [encoded(entry) for entry in value]}
    if isinstance(value, np.integer):
        return {"int64": int(value)}
    if isinstance(value, list):
        return [encoded(entry) for entry in value]
    if isinstance(value, dict):
        return {name: encoded(entry) for name, entry in value.items()}
    return value


def decoded(value):
    """The way back from `encoded`."""
    if isinstance(value, dict):
        if set(value) == {"tuple"}:
            return tuple(decoded(entry) for entry in value["tuple"])
        if set(value) == {"int64"}:
            return np.int64(value["int64"])
        return {name: decoded(entry) for name, entry in value.items()}
    return [decoded(entry) for entry in value] if isinstance(value, list) else value


def shared(value, arrays):
    """`value` with the number of an entry of `arrays` in place of each array: most are met often."""
    if isinstance(value, dict):
        if set(value) == {"shape", "dtype", "values"}:
            entry = {n: v for n, v in value.items() if (n, v) != ("dtype", "float32")}
            if entry not in arrays:
                arrays.append(entry)
            return {"array": arrays.index(entry)}
        return {name: shared(entry, arrays) for name, entry in value.items()}
    return [shared(entry, arrays) for entry in value] if isinstance(value, list | tuple) else value


def write(path, recorded):
    """One line per case, so that a difference can be read; what is usual is left out."""
    arrays = []
    usual = case("")
    sections = []
    for section, calls in recorded["cases"].items():
        lines = []
        for call in calls:
            others = {name: call[name] for name in ("x", "weights", "default_format")}
            others = {name: value for name, value in others.items() if value != usual[name]}
            entry = {"case": call["case"], "settings": encoded(unusual(call["settings"])), **others}
            lines.append(line({**entry, "seen": shared(call["seen"], arrays)}))
        sections.append(f"{line(section)}: [\n" + ",\n".join(lines) + "\n]")
    plainly = {"configs": encoded(recorded["configs"])}
    for name in ("makers", "signature", "public", "methods", "update", "given"):
        plainly[name] = shared(recorded[name], arrays)
    parts = [f"{line(name)}: {line(part)}" for name, part in plainly.items()]
    parts.append('"arrays": [\n' + ",\n".join(map(line, arrays)) + "\n]")
    parts.append('"cases": {\n' + ",\n".join(sections) + "\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def line(part):
    return json.dumps(part, separators=(",", ":"))


def main():
    warnings.simplefilter("ignore")  # Keras warns of input_shape, and of its own spellings
    written = 0
    for file, maker in {"keras.json": keras_3, "tf.json": keras_2}.items():
        found = maker()
        if found is not None:
            write(FOLDER / file, record(*found))
            written += 1
            print(f"{FOLDER / file}: {found[1]}")
    if not written:
        sys.exit("Expected keras with jax, or tensorflow with tf_keras. Received neither: install one.")


if __name__ == "__main__":
    main()

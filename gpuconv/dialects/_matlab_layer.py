"""MATLAB's layer for transposed 1-D convolution: its arguments, its display, its initializers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from gpuconv import initializers
from gpuconv._typing import Array
from gpuconv.dialects._matlab_dlarray import as_array, check_dtype, class_name, in_stored_order, labelled
from gpuconv.dialects._matlab_dltranspconv import cropped, dltranspconv
from gpuconv.dialects._matlab_properties import Property, bias, factor, initializer, name_of_layer, weights
from gpuconv.geometry import AxisGeometry, integer, transpose_axes
from gpuconv.namespace import dtype_name, is_traced, like

__all__ = ["TransposedConvolution1DLayer", "transposedConv1dLayer"]

#: What each format that the layer takes is convolved over. The output has the format of the input.
_CONVOLVED = {"CBT": "T", "SCB": "S", "SCBT": "S", "CT": "T", "SC": "S", "SCT": "S"}

# MATLAB counts numIn = FilterSize * NumChannels, which is what Keras calls the fan out of this kernel.
_INITIALIZERS: dict[str, Callable[[], Any]] = {
    "glorot": initializers.GlorotUniform,
    "he": lambda: initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
    "narrow-normal": lambda: initializers.RandomNormal(0.0, 0.01),
    "zeros": initializers.Zeros,
    "ones": initializers.Ones,
}

# One for all layers: initializing is rare.
_initializing = threading.RLock()


def transposedConv1dLayer(
    filterSize: int,
    numFilters: int,
    *,
    Stride: int = 1,
    Cropping: Any = 0,
    NumChannels: Any = "auto",
    WeightsInitializer: Any = "glorot",
    BiasInitializer: Any = "zeros",
    Weights: Any = None,
    Bias: Any = None,
    WeightLearnRateFactor: float = 1,
    BiasLearnRateFactor: float = 1,
    WeightL2Factor: float = 1,
    BiasL2Factor: float = 0,
    Name: str = "",
) -> TransposedConvolution1DLayer:
    """Make a transposed 1-D convolution layer. Source of the definition: MATLAB ``transposedConv1dLayer``.

    Numbers may be integral floats, as MATLAB's are; strings may be in any case.

    Parameters
    ----------
    filterSize, numFilters : int
        Taps of each filter, and filters, which are the channels of the output.
    Stride : int, default 1
        Output samples per input sample.
    Cropping : "same", int or (int, int), default 0
        ``"same"`` makes ``L * Stride`` of L samples and crops an odd one on the right. A number crops both
        ends, ``[l, r]`` the left and the right one.
    NumChannels : "auto" or int, default "auto"
        Channels of the input; ``"auto"`` takes those of the first input, or of Weights.
    WeightsInitializer : {"glorot", "he", "narrow-normal", "zeros", "ones"} or callable, default "glorot"
        With numIn = filterSize * NumChannels and numOut = filterSize * numFilters, "glorot" is uniform within
        ``+-sqrt(6 / (numIn + numOut))``, "he" normal of variance ``2 / numIn``, "narrow-normal" (or
        "narrownormal") normal of standard deviation 0.01. A function ``func(sz)`` makes weights of size `sz`.
    BiasInitializer : {"zeros", "narrow-normal", "ones"} or callable, default "zeros"
        The same for the bias.
    Weights : array of filterSize x numFilters x NumChannels, optional
        In place of what WeightsInitializer makes: the kernel of `gpuconv.conv1d_transpose`. None, or anything
        empty, is MATLAB's ``[]``. Lengths of 1 at the end may be missing.
    Bias : array of 1 x numFilters, optional
        In place of what BiasInitializer makes. A vector of numFilters will do.
    WeightLearnRateFactor, BiasLearnRateFactor : float, default 1
        Multiply the global learning rate of `sgdmupdate` and `adamupdate`.
    WeightL2Factor, BiasL2Factor : float, default 1 and 0
        Multiply their global L2 regularization.
    Name : str, default ""
        Any string.

    Returns
    -------
    TransposedConvolution1DLayer
        Without weights, until it is called on data or given some.

    Raises
    ------
    ValueError, TypeError
        For an argument that is none of these, naming what was received.

    Notes
    -----
    What is initialized is of single precision, or of that of Weights or Bias where one of them is given. It
    comes from `gpuconv.initializers`: the numbers are not MATLAB's own, and ``random.seed`` repeats them.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import dlarray, transposedConv1dLayer
    >>> layer = transposedConv1dLayer(11, 96, Stride=4)
    >>> layer
      TransposedConvolution1DLayer with properties:
    <BLANKLINE>
                Name: ''
    <BLANKLINE>
       Hyperparameters
          FilterSize: 11
         NumChannels: 'auto'
          NumFilters: 96
              Stride: 4
        CroppingMode: 'manual'
        CroppingSize: [0 0]
    <BLANKLINE>
       Learnable Parameters
             Weights: []
                Bias: []
    <BLANKLINE>
      Use properties method to see a list of all properties.
    >>> layer.predict(dlarray(np.ones((3, 2, 10), np.float32), "CBT"))
    96(C) x 2(B) x 47(T) single dlarray
    """
    size = integer("filterSize", filterSize, 1)
    padding = cropped(Cropping, 1)
    mode = "same" if padding == "same" else "manual"
    stride = integer("Stride", Stride, 1)
    axis = cast(AxisGeometry, transpose_axes((1,), size, strides=stride, padding="same")[0])
    same = axis.crop_left, max(0, axis.crop_right)  # where it is negative, zeros are appended instead
    if isinstance(NumChannels, str) and NumChannels.lower() == "auto":
        channels: int | str = "auto"
    elif isinstance(NumChannels, str):
        raise ValueError(f"Expected NumChannels to be 'auto' or an integer. Received {NumChannels=}.")
    else:
        channels = integer("NumChannels", NumChannels, 1)
    return TransposedConvolution1DLayer(
        {
            "FilterSize": size,
            "NumChannels": channels,
            "NumFilters": integer("numFilters", numFilters, 1),
            "Stride": stride,
            "CroppingMode": mode,
            "CroppingSize": same if mode == "same" else padding[0],
        },
        Name=Name,
        WeightsInitializer=WeightsInitializer,
        BiasInitializer=BiasInitializer,
        Weights=Weights,
        Bias=Bias,
        WeightLearnRateFactor=WeightLearnRateFactor,
        BiasLearnRateFactor=BiasLearnRateFactor,
        WeightL2Factor=WeightL2Factor,
        BiasL2Factor=BiasL2Factor,
    )


class TransposedConvolution1DLayer:
    """A transposed 1-D convolution layer, made by `transposedConv1dLayer`.

    Its properties are the arguments of that function, with Cropping as two: CroppingMode, ``"manual"`` or
    ``"same"``, and CroppingSize, what is cropped on the left and on the right. Sizes stay as they were made;
    the others may be assigned, and are checked. Assigning None to Weights or Bias empties it.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import transposedConv1dLayer
    >>> layer = transposedConv1dLayer(2, 1, Stride=2, Cropping=[1, 0])
    >>> type(layer).__name__, layer.CroppingMode, layer.CroppingSize
    ('TransposedConvolution1DLayer', 'manual', (1, 0))
    >>> layer.Weights = np.array([[1.0], [10.0]])
    >>> layer.predict(np.array([[1.0, 2.0, 3.0]]), "CT")
    array([[10.,  2., 20.,  3., 30.]])
    """

    Name = Property(name_of_layer)
    FilterSize = Property()
    NumChannels = Property()
    NumFilters = Property()
    Stride = Property()
    CroppingMode = Property()
    CroppingSize = Property()
    WeightsInitializer = Property(initializer("glorot", "he", "narrow-normal", "zeros", "ones"))
    BiasInitializer = Property(initializer("zeros", "narrow-normal", "ones"))
    Weights = Property(weights)
    Bias = Property(bias)
    WeightLearnRateFactor = Property(factor)
    BiasLearnRateFactor = Property(factor)
    WeightL2Factor = Property(factor)
    BiasL2Factor = Property(factor)

    def __init__(self, sizes: dict[str, Any], **assignable: Any) -> None:
        vars(self).update(sizes)
        for name, value in assignable.items():
            setattr(self, name, value)

    def predict(self, X: Any, DataFormat: str | None = None) -> Any:
        """Compute the output; the first call initializes what is empty of Weights and Bias.

        Parameters
        ----------
        X : dlarray or array
            Of format CBT or CT, of which T is convolved, or of SCB, SCBT, SC or SCT, of which S is.
        DataFormat : str, optional
            The labels of an `X` that has none, in any order.

        Returns
        -------
        dlarray or array
            As `X`, and of its format. Single precision where `X` or a parameter is.

        Raises
        ------
        ValueError, TypeError
            For another format, other channels, integers, or what an initializer should not have made.
        """
        data, labels = labelled("X", X, "DataFormat", DataFormat)
        convolved = _CONVOLVED.get(in_stored_order(labels))
        if convolved is None:
            raise ValueError(
                f"Expected X of a format among {', '.join(_CONVOLVED)}. Received X of format {labels!r}."
            )
        check_dtype("X", data)
        self._initialize(data.shape[labels.index("C")])
        return dltranspconv(
            X,
            self._learnable("Weights", data),
            self._learnable("Bias", data),
            Stride=self.Stride,
            Cropping="same" if self.CroppingMode == "same" else self.CroppingSize,
            DataFormat=DataFormat,
            WeightsFormat=convolved + "CU",
        )

    __call__ = predict

    def _initialize(self, channels: int) -> None:
        if self.NumChannels not in ("auto", channels):
            raise ValueError(
                f"Expected X of NumChannels={self.NumChannels} channels. Received X of {channels}."
            )
        with _initializing:
            given = next((p for p in (self.Weights, self.Bias) if p is not None), None)
            dtype = "float32" if given is None else dtype_name(given.dtype)
            if self.Weights is None:
                size = self.FilterSize, self.NumFilters, channels
                self.Weights = _drawn("WeightsInitializer", self.WeightsInitializer, size, dtype)
            if self.Bias is None:
                self.Bias = _drawn("BiasInitializer", self.BiasInitializer, (1, self.NumFilters), dtype)

    def _learnable(self, name: str, data: Array) -> Array:
        """Weights or Bias, moved to the library and device of `data` if they were elsewhere."""
        moved = like(vars(self)[name], data)
        # What is made while JAX traces belongs to the trace; the layer keeps its own.
        if not is_traced(data):
            vars(self)[name] = moved
        return moved

    def properties(self) -> list[str]:
        """The names of all properties."""
        return [name for name, value in vars(type(self)).items() if isinstance(value, Property)]

    def __repr__(self) -> str:
        lines = ["  TransposedConvolution1DLayer with properties:", "", self._line("Name"), ""]
        lines += ["   Hyperparameters", *map(self._line, self.properties()[1:7]), ""]
        lines += ["   Learnable Parameters", self._line("Weights"), self._line("Bias"), ""]
        return "\n".join([*lines, "  Use properties method to see a list of all properties."])

    def _line(self, name: str) -> str:
        return f"{name:>16}: {_shown(getattr(self, name))}"


def _drawn(name: str, how: Any, size: tuple[int, ...], dtype: str) -> Array:
    if isinstance(how, str):
        return _INITIALIZERS[how]()(size, dtype=dtype)
    made = as_array(name, how(size))
    if tuple(made.shape) != size:
        raise ValueError(
            f"Expected {name} to make an array of size {size}. Received one of shape {tuple(made.shape)}."
        )
    return made


def _shown(value: Any) -> str:
    if value is None:
        return "[]"
    if isinstance(value, str | int):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{' '.join(map(str, value))}]"
    return f"[{'x'.join(map(str, value.shape))} {class_name(value)}]"

"""MATLAB's words: `transposedConv1dLayer`, `dltranspconv`, `dlarray` and the update functions.

Arguments, defaults, layouts and display are those of Deep Learning Toolbox; the arrays are yours: what comes
in as NumPy, CuPy, torch or JAX comes out as such. Dimensions keep their order: a MATLAB array of 3 x 2 x 10
is one of shape (3, 2, 10) here.

Examples
--------
>>> import numpy as np
>>> from gpuconv.dialects.matlab import dlarray, transposedConv1dLayer
>>> layer = transposedConv1dLayer(4, 8, Stride=2, Cropping="same")
>>> layer(dlarray(np.ones((3, 5, 10), np.float32), "CBT"))
8(C) x 5(B) x 20(T) single dlarray
"""

from gpuconv.dialects._matlab_dlarray import dlarray
from gpuconv.dialects._matlab_dltranspconv import dltranspconv
from gpuconv.dialects._matlab_layer import TransposedConvolution1DLayer, transposedConv1dLayer
from gpuconv.dialects._matlab_update import adamupdate, sgdmupdate

__all__ = [
    "TransposedConvolution1DLayer",
    "adamupdate",
    "dlarray",
    "dltranspconv",
    "sgdmupdate",
    "transposedConv1dLayer",
]

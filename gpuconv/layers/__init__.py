"""Layers that read like `keras.layers`: configuration plus parameters, one op each."""

from gpuconv.layers.base import Layer
from gpuconv.layers.conv import Conv1D, Conv2D, Conv3D
from gpuconv.layers.conv_transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose
from gpuconv.layers.core import Activation, Dropout, Input
from gpuconv.layers.sequential import Sequential

# The second names that Keras has.
Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
InputLayer = Input

__all__ = [
    "Activation",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Convolution1D",
    "Convolution1DTranspose",
    "Convolution2D",
    "Convolution2DTranspose",
    "Convolution3D",
    "Convolution3DTranspose",
    "Dropout",
    "Input",
    "InputLayer",
    "Layer",
    "Sequential",
]

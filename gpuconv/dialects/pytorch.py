"""The convolutions of PyTorch: those of ``torch.nn.functional``, and the modules of ``torch.nn``.

Argument order, layouts and state dicts are PyTorch's; arrays are of any library, and PyTorch need not be
installed.
"""

from gpuconv.dialects._pytorch_functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from gpuconv.dialects._pytorch_modules import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

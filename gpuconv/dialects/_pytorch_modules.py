"""``torch.nn``'s convolution modules. `gpuconv.dialects.pytorch` is their public place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv._typing import Array, PerAxis
from gpuconv.dialects._channels_first import spoken
from gpuconv.dialects._pytorch_base import ConvNd
from gpuconv.dialects._pytorch_functional import WORDS, conv_padding
from gpuconv.geometry import as_shape, per_axis, transpose_axes
from gpuconv.namespace import array_namespace

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvTranspose(ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        seed: int | None = None,
    ) -> None:
        del device  # the parameters follow the input
        crops = per_axis("padding", padding, self.ndim, 0)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            crops,
            output_padding,
            dilation,
            groups,
            bias,
            padding_mode,
            dtype,
            seed,
        )
        with spoken(WORDS):
            # An output padding that is too large is refused here rather than at the first call.
            transpose_axes(
                (None,) * self.ndim,
                self.kernel_size,
                strides=self.stride,
                output_padding=self.output_padding,
                dilation_rate=self.dilation,
            )

    def __call__(self, input: Array, output_size: Sequence[int] | None = None) -> Array:
        """Convolve; `output_size`, with or without N and C, replaces the output padding."""
        if output_size is None:
            return self.run(input, output_padding=self.output_padding)
        array_namespace(input=input)
        lengths = as_shape("output_size", output_size)
        if len(lengths) not in (self.ndim, input.ndim):
            raise ValueError(
                f"Expected output_size of {self.ndim} lengths, or of {input.ndim}, as many as the input has "
                f"dimensions. Received {output_size=}."
            )
        return self.run(input, output_size=lengths[-self.ndim :])


class _Conv(ConvNd):
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: str | PerAxis = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        seed: int | None = None,
    ) -> None:
        del device  # the parameters follow the input
        crops = conv_padding(padding, stride, self.ndim)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            crops,
            0,
            dilation,
            groups,
            bias,
            padding_mode,
            dtype,
            seed,
        )

    def __call__(self, input: Array) -> Array:
        """Convolve."""
        return self.run(input)


class ConvTranspose1d(_ConvTranspose):
    """1-D transposed convolution: (N, in_channels, L) to (N, out_channels, new_length), or both without N.

    Called and printed as ``torch.nn.ConvTranspose1d``, which is the source of the definition. `weight`,
    of (in_channels, out_channels // groups, k), and `bias` follow the input to its library and device.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int or 1 int
        Taps of the kernel.
    stride, padding, output_padding, groups, dilation
        As for `gpuconv.dialects.pytorch.conv_transpose1d`.
    bias : bool, default True
        Whether there is one.
    padding_mode : {"zeros"}
        PyTorch has others for the forward convolutions.
    device
        Not used.
    dtype : str or dtype, optional
        Type of the parameters, to which input is cast. ``"float32"`` by default.
    seed : int, optional
        Makes the first values of the parameters repeatable. They are uniform within ``+-1 / sqrt(fan_in)``,
        ``fan_in = out_channels // groups * k``.

    Raises
    ------
    ValueError, TypeError
        For an argument that cannot be right, naming what was received.
    NotImplementedError
        For another `padding_mode`.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import ConvTranspose1d
    >>> up = ConvTranspose1d(8, 4, 4, stride=2, padding=1)
    >>> up
    ConvTranspose1d(8, 4, kernel_size=(4,), stride=(2,), padding=(1,))
    >>> up(np.zeros((1, 8, 10), np.float32)).shape
    (1, 4, 20)
    >>> up(np.zeros((8, 10), np.float32), output_size=(21,)).shape
    (4, 21)
    >>> up.load_state_dict({"weight": np.ones((8, 4, 4)), "bias": np.zeros(4)})
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    """

    ndim = 1


class ConvTranspose2d(_ConvTranspose):
    """2-D transposed convolution, called and printed as ``torch.nn.ConvTranspose2d``.

    Parameters and errors are those of `ConvTranspose1d`, with one integer or 2 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import ConvTranspose2d
    >>> ConvTranspose2d(16, 8, 3, 2)(np.zeros((1, 16, 7, 7)), output_size=(1, 8, 16, 16)).shape
    (1, 8, 16, 16)
    """

    ndim = 2


class ConvTranspose3d(_ConvTranspose):
    """3-D transposed convolution, called and printed as ``torch.nn.ConvTranspose3d``.

    Parameters and errors are those of `ConvTranspose1d`, with one integer or 3 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import ConvTranspose3d
    >>> ConvTranspose3d(4, 2, 2, stride=(1, 2, 2))(np.zeros((4, 3, 5, 5))).shape
    (2, 4, 10, 10)
    """

    ndim = 3


class Conv1d(_Conv):
    """1-D convolution: (N, in_channels, L) to (N, out_channels, new_length), or both without N.

    Called and printed as ``torch.nn.Conv1d``, which is the source of the definition. Parameters and errors
    are those of `ConvTranspose1d`, with the `padding` of `gpuconv.dialects.pytorch.conv1d`, a `weight` of
    (out_channels, in_channels // groups, k), and ``fan_in = in_channels // groups * k``.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import Conv1d
    >>> conv = Conv1d(8, 4, 3, padding="same", bias=False)
    >>> conv
    Conv1d(8, 4, kernel_size=(3,), stride=(1,), padding=same, bias=False)
    >>> conv(np.zeros((1, 8, 10))).shape, conv.weight.shape
    ((1, 4, 10), (4, 8, 3))
    """

    ndim = 1


class Conv2d(_Conv):
    """2-D convolution, called and printed as ``torch.nn.Conv2d``.

    Parameters and errors are those of `Conv1d`, with one integer or 2 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import Conv2d
    >>> Conv2d(3, 16, 5, stride=2, padding=2)(np.zeros((1, 3, 28, 28))).shape
    (1, 16, 14, 14)
    """

    ndim = 2


class Conv3d(_Conv):
    """3-D convolution, called and printed as ``torch.nn.Conv3d``.

    Parameters and errors are those of `Conv1d`, with one integer or 3 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.pytorch import Conv3d
    >>> Conv3d(4, 2, 2, groups=2)(np.zeros((4, 3, 5, 5))).shape
    (2, 2, 4, 4)
    """

    ndim = 3

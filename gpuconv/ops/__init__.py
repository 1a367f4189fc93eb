"""The public functions: validate, build a geometry, pick a backend, run."""

from gpuconv.ops.conv import conv1d, conv2d, conv3d
from gpuconv.ops.conv_transpose import conv1d_transpose, conv2d_transpose, conv3d_transpose
from gpuconv.ops.gradients import vjp
from gpuconv.ops.plan import Plan, plan
from gpuconv.ops.shapes import Setting, output_shape, solve

__all__ = [
    "Plan",
    "Setting",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "output_shape",
    "plan",
    "solve",
    "vjp",
]

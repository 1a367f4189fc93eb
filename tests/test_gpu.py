"""What only a GPU can show: streams, graphs, replay. Skipped without one, unless with ``--require-gpu``."""

import numpy as np
import pytest

import gpuconv

SHAPES = [  # x, kernel, groups, strides: one for each kernel
    ((2, 500, 64), (8, 32, 64), 1, 4),
    ((2, 500, 64), (8, 1, 64), 64, 4),
]


@pytest.mark.parametrize(("x_shape", "kernel_shape", "groups", "strides"), SHAPES)
def test_a_captured_graph_replays_with_new_data(cupy, x_shape, kernel_shape, groups, strides):
    rng = np.random.default_rng(0)
    x = cupy.asarray(rng.standard_normal(x_shape, np.float32))
    kernel = cupy.asarray(rng.standard_normal(kernel_shape, np.float32))
    options = {"strides": strides, "groups": groups}
    out = gpuconv.conv1d_transpose(x, kernel, **options)  # compiles: nothing may, while a graph is captured
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        gpuconv.conv1d_transpose(x, kernel, out=out, **options)
        graph = stream.end_capture()
    fresh = rng.standard_normal(x_shape, np.float32)
    x.set(fresh)
    wanted = gpuconv.conv1d_transpose(x, kernel, **options).get()
    for _ in range(1000):
        graph.launch(stream=stream)
    stream.synchronize()
    np.testing.assert_array_equal(out.get(), wanted)


@pytest.mark.parametrize(("x_shape", "kernel_shape", "groups", "strides"), SHAPES)
def test_the_current_stream_is_used_and_numpy_agrees(cupy, x_shape, kernel_shape, groups, strides):
    rng = np.random.default_rng(1)
    x, kernel = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (x_shape, kernel_shape))
    wanted = gpuconv.conv1d_transpose(x, kernel, strides=strides, groups=groups)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        y = gpuconv.conv1d_transpose(cupy.asarray(x), cupy.asarray(kernel), strides=strides, groups=groups)
        stream.synchronize()
    np.testing.assert_array_equal(y.get(), wanted)


def test_torch_tensors_come_and_go_by_dlpack(cupy):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    x, kernel = torch.ones(1, 8, 4, device="cuda"), torch.ones(3, 2, 4, device="cuda")
    y = gpuconv.conv1d_transpose(*map(cupy.from_dlpack, (x, kernel)), strides=2)
    back = torch.from_dlpack(y)
    assert back.data_ptr() == y.data.ptr
    assert back.shape == (1, 17, 2)

"""The planner's choices: counted work over rates, and nothing that a batch could change."""

import pytest

from gpuconv.backends.cuda import planner
from gpuconv.backends.cuda.call import Call, Work
from gpuconv.backends.cuda.planner import ALGORITHMS, ALIKE, Limits, choose, explain
from gpuconv.namespace import DTYPES
from gpuconv.ops.shapes import geometry_of

H200 = Limits("NVIDIA H200", (9, 0), 132)
T4 = Limits("Tesla T4", (7, 5), 40)


def call_of(x_shape, kernel_shape, strides=1, transposed=True, dtype="float32", precision="ieee", **settings):
    ndim = len(x_shape) - 2
    groups = settings.pop("groups", 1)
    geometry = geometry_of(transposed, ndim, x_shape, kernel_shape, True, groups, strides=strides, **settings)
    return Call(geometry, x_shape[0], transposed, True, dtype, precision)


DENSE = call_of((4, 512, 256), (16, 128, 256), 8, padding=4)


def test_rates_have_every_algorithm_and_type():
    assert "assumed" in planner._all_rates()
    for name, rates in planner._all_rates().items():
        assert rates["source"], name
        assert rates["launch"] > 0
        assert rates["bytes"] > 0
        assert list(rates["multiply_adds"]) == [algorithm.name for algorithm in ALGORITHMS], name
        for algorithm in ALGORITHMS:
            each = dict(zip(DTYPES, rates["multiply_adds"][algorithm.name], strict=True))
            for dtype, rate in each.items():
                able = not algorithm.refuses(DENSE._replace(dtype=dtype, precision="tf32"), (9, 0))
                assert rate > 0 if able else rate == 0, (name, algorithm.name, dtype)


@pytest.mark.parametrize(
    ("dtype", "precision", "limits", "tensor"),
    [
        ("float16", "ieee", T4, False),
        ("float16", "ieee", H200, True),
        ("bfloat16", "ieee", H200, True),
        ("bfloat16", "tf32", H200, True),
        ("float32", "ieee", H200, False),
        ("float32", "tf32", H200, True),
        ("float32", "tf32", T4, False),
        ("float64", "tf32", H200, False),
        ("complex64", "tf32", H200, False),
    ],
)
def test_tensor_cores_are_chosen_where_they_may_be(dtype, precision, limits, tensor):
    call = DENSE._replace(dtype=dtype, precision=precision)
    assert (choose(call, limits).name == "mma") == tensor


def test_tensor_cores_or_not_does_not_depend_on_the_batch():
    for call in (DENSE._replace(dtype="float16"), call_of((1, 20, 8), (3, 4, 8), dtype="float16")):
        batches = (1, 2, 7, 64, 4096)
        assert len({choose(call._replace(samples=n), H200).name == "mma" for n in batches}) == 1


def test_the_choice_has_the_lowest_estimate():
    for call in (DENSE, call_of((1, 4, 2), (3, 2, 2)), call_of((2, 9, 9, 4), (3, 3, 4, 4))):
        able = [a for a in ALIKE if not a.refuses(call, H200.capability)]
        times = {a.name: planner._microseconds(a, call, a.work(call), H200) for a in able}
        assert times[choose(call, H200).name] == min(times.values())


def test_more_axes_are_for_the_direct_kernel():
    assert choose(call_of((2, 9, 9, 4), (3, 3, 4, 4)), H200).name == "direct"


def test_a_measured_device_has_its_own_rates(monkeypatch):
    assumed = planner._all_rates()["assumed"]
    slow = {name: [1.0] * 6 for name in assumed["multiply_adds"]}
    measured = assumed | {"source": "measured", "multiply_adds": slow | {"direct": [1e9] * 6}}
    monkeypatch.setattr(planner, "_all_rates", lambda: {"assumed": assumed, "A Device": measured})
    device = Limits("A Device", (9, 0), 132)
    assert choose(DENSE, device).name == "direct"
    assert "rates: measured" in explain(DENSE, device, "direct")
    assert choose(DENSE, device._replace(name="another")).name != "direct"


def test_a_last_wave_costs_as_much_as_a_full_one():
    direct = ALGORITHMS[0]
    full = planner._microseconds(direct, DENSE, Work(132_000_000, 0, 132, 1), H200)
    more = planner._microseconds(direct, DENSE, Work(133_000_000, 0, 133, 1), H200)
    launch = planner._all_rates()["assumed"]["launch"]
    assert more - launch == pytest.approx(2 * (full - launch))


def test_algorithms_are_asked_for_by_name():
    assert choose(DENSE, H200, "direct").name == "direct"
    with pytest.raises(ValueError, match=r"one of 'direct', .*Received algorithm='fft'"):
        choose(DENSE, H200, "fft")
    with pytest.raises(ValueError, match=r"Received algorithm='mma': rounds float32 to TF32"):
        choose(DENSE, H200, "mma")
    with pytest.raises(ValueError, match=r"Received algorithm='mma': needs compute capability 8\.0"):
        choose(DENSE._replace(dtype="float16"), T4, "mma")


def test_more_than_32_bits_of_elements_are_planned():
    huge = call_of((8, 2**20, 512), (16, 256, 512), 8)
    assert huge.is_wide
    assert not DENSE.is_wide
    name = choose(huge, H200).name
    assert name in explain(huge, H200, name)

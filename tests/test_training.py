"""Training: layers' pullbacks, optimizers beside Keras', and fit."""

import importlib.util
import math
import sys
import types

import numpy as np
import pytest

from gpuconv import callbacks, constraints, layers, losses, optimizers, regularizers


def model_of(seed=0, **options):
    model = layers.Sequential(
        [
            layers.Input((24, 2)),
            layers.Conv1D(4, 5, 2, "same", activation="relu", seed=seed, **options),
            layers.Conv1DTranspose(3, 4, 2, "same", activation="tanh", seed=seed + 9, **options),
            layers.Conv1DTranspose(2, 3, 1, "same", seed=seed + 19),
        ]
    )
    model.compile("adam", "mse")
    return model


def data(samples=10, dtype=np.float32):
    rng = np.random.default_rng(5)
    return rng.standard_normal((samples, 24, 2)).astype(dtype), rng.standard_normal((samples, 24, 2)).astype(
        dtype
    )


# --- the pullbacks of layers ---------------------------------------------------------------------


def total_loss(model, x, y):
    """What fit makes less, in float64."""
    return float(losses.mean_squared_error(model(x), y)) + sum(map(float, model.losses))


def test_gradients_of_a_model_are_its_finite_differences():
    penalties = {
        "kernel_regularizer": regularizers.L1L2(0.03, 0.02),
        "bias_regularizer": "l2",
        "activity_regularizer": regularizers.L2(0.05),
    }
    model = layers.Sequential(
        [
            layers.Conv1D(3, 3, 2, "same", activation="tanh", dtype="float64", seed=1, **penalties),
            layers.Activation("softmax", dtype="float64"),
            layers.Sequential(
                [layers.Conv1DTranspose(2, 4, 2, activation="sigmoid", dtype="float64", seed=2)]
            ),
        ]
    )
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 6, 2))
    y = rng.standard_normal(model(x).shape)
    outputs, pullback = model.vjp(x)
    dx, gradients = pullback(losses.gradient(losses.mean_squared_error, outputs, y))
    assert [g.shape for g in gradients] == [w.shape for w in model.trainable_weights]
    h = 1e-6
    for array, gradient in zip((x, *model.weights), (dx, *gradients), strict=True):
        direction = rng.standard_normal(array.shape)
        ways = []
        original = array.copy()
        for sign in (1, -1):
            array[...] = original + sign * h * direction  # the layer's own arrays: written in place
            ways.append(total_loss(model, x, y))
        array[...] = original
        # The central difference errs by h**2 times a third derivative and by eps / h of the value.
        wanted = (ways[0] - ways[1]) / (2 * h)
        assert abs(np.vdot(gradient, direction) - wanted) <= 1e-8 * max(1, abs(wanted))


def test_frozen_layers_have_no_gradients_but_pass_them_on():
    model = model_of()
    model.layers[2].trainable = False
    x, y = data()
    outputs, pullback = model.vjp(x)
    dx, gradients = pullback(outputs - y)
    assert [g.shape for g in gradients] == [w.shape for w in model.trainable_weights]
    assert len(gradients) == 4
    assert dx.shape == x.shape
    assert abs(dx).max() > 0


def test_dropout_drops_the_same_on_the_way_back():
    layer = layers.Dropout(0.5, seed=0)
    x = np.ones((4, 50), np.float32)
    outputs, pullback = layer.vjp(x, training=True)
    dx, gradients = pullback(np.ones_like(x))
    np.testing.assert_array_equal(dx, outputs)
    assert gradients == []
    assert 0.3 < (dx == 0).mean() < 0.7
    outputs, pullback = layer.vjp(x)
    assert pullback(x)[0] is x


def test_the_inputs_cotangent_has_the_inputs_type():
    layer = layers.Conv1D(2, 3, seed=0)
    _, pullback = layer.vjp(np.ones((1, 5, 2)))
    assert pullback(np.ones((1, 3, 2), np.float32))[0].dtype == np.float64
    _, pullback = layer.vjp(np.ones((1, 5, 2), np.int32))
    assert pullback(np.ones((1, 3, 2), np.float32))[0].dtype == np.float32


class Gain(layers.Layer):
    def build(self, input_shape):
        self.add_weight("gain", input_shape[-1:], "ones")
        super().build(input_shape)

    def call(self, inputs):
        return inputs * self.weight("gain", inputs)


class TrainedGain(Gain):
    def call_vjp(self, inputs):
        gain = self.weight("gain", inputs)
        return inputs * gain, lambda dy: (dy * gain, {"gain": (dy * inputs).sum(axis=(0, 1))})


def test_a_layer_of_your_own_says_how_it_is_trained():
    model = layers.Sequential([TrainedGain()])
    model.compile(optimizers.SGD(0.5), "mse")
    x = np.random.default_rng(0).standard_normal((64, 4, 1)).astype(np.float32)
    model.fit(x, 3 * x, epochs=40, verbose=0, seed=0)
    np.testing.assert_allclose(model.weights[0], 3, rtol=1e-4)
    with pytest.raises(NotImplementedError, match="Expected Gain to define call_vjp"):
        Gain().vjp(x)


def test_an_overridden_convolution_op_must_say_what_it_pulls_back():
    class Doubled(layers.Conv1D):
        def convolution_op(self, inputs, kernel):
            return 2 * super().convolution_op(inputs, kernel)

    with pytest.raises(NotImplementedError, match="Expected Doubled to define call_vjp"):
        Doubled(2, 3).vjp(np.ones((1, 5, 2)))


# --- optimizers ----------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": ("SGD", {"learning_rate": 0.1}),
    "momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.8}),
    "nesterov": ("SGD", {"learning_rate": 0.1, "momentum": 0.8, "nesterov": True}),
    "adam": ("Adam", {"learning_rate": 0.01}),
    "adam's betas": ("Adam", {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "rmsprop": ("RMSprop", {}),
    "centered": ("RMSprop", {"centered": True, "rho": 0.7}),
    "rmsprop's momentum": ("RMSprop", {"momentum": 0.5}),
    "clipnorm": ("SGD", {"learning_rate": 0.1, "clipnorm": 0.5}),
    "clipvalue": ("Adam", {"learning_rate": 0.1, "clipvalue": 0.1}),
    "global clipnorm": ("SGD", {"learning_rate": 0.1, "global_clipnorm": 0.7}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_as_keras_does(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
    class_name, settings = OPTIMIZERS[name]
    ours = getattr(optimizers, class_name)(**settings)
    theirs = getattr(keras.optimizers, class_name)(**settings)
    rng = np.random.default_rng(1)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (4,))]
    variables = [keras.Variable(value) for value in values]
    slots = [{}, {}]
    for iteration in range(1, 9):
        gradients = [rng.standard_normal(value.shape).astype(np.float32) for value in values]
        clipped = optimizers.clipped(ours, gradients)
        values = [ours(v, g, s, iteration) for v, g, s in zip(values, clipped, slots, strict=True)]
        theirs.apply(gradients, variables)
    for value, variable in zip(values, variables, strict=True):
        # Eight steps of float32, in another order of operations.
        np.testing.assert_allclose(value, np.asarray(variable), rtol=2e-5, atol=2e-6)


def test_factors_of_a_parameter():
    value, gradient = np.ones(3), np.full(3, 0.5)
    sgd = optimizers.SGD(0.1, l2=0.2)
    wanted = 1 - 0.1 * 3 * (0.5 + 0.2 * 4 * 1)
    np.testing.assert_allclose(sgd(value, gradient, {}, 1, learning_rate_factor=3, l2_factor=4), wanted)
    layer = layers.Conv1D(2, 3, seed=0)
    layer.build((None, 8, 2))
    layer.set_factors("kernel", learning_rate=0)
    model = layers.Sequential([layer])
    model.compile(sgd)
    before = model.get_weights()
    x, y = np.ones((2, 8, 2), np.float32), np.zeros((2, 6, 2), np.float32)
    model.train_on_batch(x, y)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).all()
    with pytest.raises(ValueError, match="Expected learning_rate to be at least 0"):
        layer.set_factors("bias", learning_rate=-1)
    with pytest.raises(ValueError, match=r"built: kernel, bias\. Received 'gain'"):
        layer.set_factors("gain", l2=1)


def test_halves_step_in_float32_and_are_rounded_once():
    adam = optimizers.Adam(0.1)
    slots = {}
    value = adam(np.ones(2, np.float16), np.full(2, 1e-7, np.float16), slots, 1)
    assert value.dtype == np.float16
    assert slots["square"].dtype == np.float32


def test_complex_parameters():
    adam = optimizers.Adam(0.1, epsilon=0.0)
    value = adam(np.zeros(1, complex), np.array([3 + 4j]), {}, 1)
    np.testing.assert_allclose(value, -0.1 * (3 + 4j) / 5)
    with pytest.raises(TypeError, match="Use clipnorm"):
        optimizers.clipped(optimizers.SGD(clipvalue=1.0), [value])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"learning_rate": -1}, ValueError, "at least 0"),
        ({"learning_rate": "fast"}, TypeError, "real number"),
        ({"momentum": 1.5}, ValueError, "from 0 to 1"),
        ({"nesterov": 1}, TypeError, "True or False"),
        ({"clipnorm": 0}, ValueError, "above 0, or None"),
        ({"clipnorm": 1, "clipvalue": 1}, ValueError, "clipnorm and clipvalue"),
    ],
)
def test_optimizers_refuse_what_cannot_be(settings, error, words):
    with pytest.raises(error, match=words):
        optimizers.SGD(**settings)


def test_identifiers_of_optimizers_and_losses():
    assert optimizers.get("SGD") == optimizers.get({"class_name": "SGD", "config": {}}) == optimizers.SGD()
    assert optimizers.get(optimizers.serialize(optimizers.Adam(0.5))) == optimizers.Adam(0.5)
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        optimizers.get("adamm")
    assert losses.get("mae") is losses.mean_absolute_error
    for settings in ((optimizers.SGD, np.subtract), (np.sin, "mse"), ("sgd", None)):
        with pytest.raises(TypeError, match=r"of gpuconv\.(losses|optimizers)"):
            model_of().compile(*settings)
    with pytest.raises(ValueError, match="beta_1 to be below 1"):
        optimizers.Adam(beta_1=1.0)
    with pytest.raises(ValueError, match="Received loss='hinge'"):
        losses.get("hinge")


@pytest.mark.parametrize("name", ["mse", "mae"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_losses_and_their_gradients(name, dtype):
    rng = np.random.default_rng(2)
    y, target, step = (rng.standard_normal((2, 3, 4)).astype(dtype) for _ in range(3))
    if dtype == "complex128":
        y, target, step = y * (1 + 2j), target * 1j, step * (1 - 1j)
    loss = losses.get(name)
    h = 1e-6
    wanted = (loss(y + h * step, target) - loss(y - h * step, target)) / (2 * h)
    found = np.vdot(losses.gradient(loss, y, target), step).real
    # The difference of two losses that are each rounded; what is beyond h is of order h**2.
    assert abs(found - wanted) <= 4 * np.finfo(float).eps * float(loss(y, target)) / h + 1e-10
    with pytest.raises(ValueError, match="Expected targets of the predictions' shape"):
        loss(y, target[0])
    with pytest.raises(NotImplementedError, match=r"method gradient\(y, target\)"):
        losses.gradient(np.subtract, y, target)


def test_a_loss_of_your_own():
    class Huge:
        def __call__(self, y, target):
            return losses.mean_squared_error(y, target) * 9

        def gradient(self, y, target):
            return 9 * losses.gradient(losses.mean_squared_error, y, target)

    model, plain = model_of(), model_of()
    model.compile(optimizers.SGD(0.01), Huge())
    plain.compile(optimizers.SGD(0.09), "mse")
    x, y = data()
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    plain.fit(x, y, epochs=2, verbose=0, shuffle=False)
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# --- fit -----------------------------------------------------------------------------------------


def test_constraints_hold_after_every_update():
    model = layers.Sequential([layers.Conv1D(4, 3, seed=0, kernel_constraint=constraints.MaxNorm(0.2))])
    model.compile(optimizers.SGD(1.0))
    x, _ = data()
    model(x)
    model.train_on_batch(x, np.ones((10, 22, 4), np.float32))
    assert np.linalg.norm(model.weights[0], axis=0).max() <= 0.2 * (1 + 1e-6)


PENALTIES = {"kernel_regularizer": regularizers.L2(0.1), "activity_regularizer": regularizers.L2(0.01)}


def test_a_step_is_what_its_parts_say():
    """Penalties in the loss and in the gradients, dropout in training only, gradients clipped."""
    x, y = data()
    layers_ = [layers.Dropout(0.5, seed=1), layers.Conv1D(2, 3, padding="same", seed=2, **PENALTIES)]
    model = layers.Sequential([layers.Input((24, 2)), *layers_])
    sgd = optimizers.SGD(0.5, global_clipnorm=0.01, l2=0.3)
    model.compile(sgd)
    layers_[1].set_factors("kernel", l2=2.0)
    before = model.get_weights()
    drop = layers.Dropout(0.5, seed=1)
    outputs, pullback = layers_[1].vjp(drop(x, training=True))
    penalties = sum(map(float, layers_[1].losses))
    assert penalties > 0
    loss = float(losses.mean_squared_error(outputs, y)) + penalties
    _, gradients = pullback(losses.gradient("mse", outputs, y))
    norm = np.sqrt(sum((g.astype(float) ** 2).sum() for g in gradients))
    wanted = [
        w - 0.5 * (g * 0.01 / norm + 0.3 * factor * w)
        for w, g, factor in zip(before, gradients, (2.0, 1.0), strict=True)
    ]
    found = model.train_on_batch(x, y)
    assert isinstance(found, np.ndarray)
    assert float(found) == pytest.approx(loss, rel=1e-6)
    for a, b in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert model.evaluate(x, y, batch_size=10) == pytest.approx(total_loss(model, x, y), rel=1e-6)


def test_a_training_that_was_stopped_can_go_on():
    x, y = data()
    model = model_of()
    model.fit(x, y, epochs=5, verbose=0, callbacks=[callbacks.EarlyStopping("loss", min_delta=100.0)])
    assert len(model.fit(x, y, epochs=3, verbose=0).epoch) == 3


def test_what_a_failing_constraint_leaves_behind():
    calls = []

    def constraint(w):
        calls.append(1)
        if len(calls) > 2:
            raise ArithmeticError("no")
        return w

    x, y = data()
    model = layers.Sequential([layers.Conv1D(2, 3, padding="same", seed=0, bias_constraint=constraint)])
    model.compile("adam")
    for _ in range(2):
        model.train_on_batch(x, y)
    before, iteration = model.get_weights(), model.iteration
    mean = model._slots[0]["mean"].copy()
    with pytest.raises(ArithmeticError):
        model.train_on_batch(x, y)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.iteration == iteration
    np.testing.assert_array_equal(model._slots[0]["mean"], mean)


def test_torch_graphs_do_not_pile_up():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    x, y = map(torch.asarray, data())
    model = model_of()
    loss = model.train_on_batch(x.requires_grad_(), y)
    assert not loss.requires_grad
    assert not any(w.requires_grad for w in model.weights)


def test_a_training_goes_on_with_another_library():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    x, y = data()
    model, plain = model_of(), model_of()
    model.train_on_batch(x, y)
    model.train_on_batch(torch.asarray(x), torch.asarray(y))
    model.train_on_batch(x, y)
    for _ in range(3):
        plain.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_traced_and_lazy_arrays_are_refused():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    x, y = data()
    model = model_of()
    with pytest.raises(NotImplementedError, match=r"outside of jax\.jit"):
        jax.jit(model.train_on_batch)(x, y)
    model(x)
    with pytest.raises(NotImplementedError, match="that JAX traces"):
        jax.jit(lambda a: layers.Dropout(0.5)(a, training=True))(x)


def test_a_layer_is_in_a_model_once():
    layer = layers.Conv1D(2, 3, padding="same")
    inner = [layers.Sequential([layer], name=name) for name in "ab"]
    with pytest.raises(ValueError, match="not in the model yet"):
        layers.Sequential(inner)


@pytest.mark.parametrize("base", [layers.Activation, layers.Dropout, layers.Sequential])
def test_an_overridden_call_must_say_what_it_pulls_back(base):
    class Twice(base):
        def call(self, inputs, **options):
            return 2 * super().call(inputs, **options)

    layer = Twice(*{layers.Activation: ["relu"], layers.Dropout: [0.5]}.get(base, []))
    with pytest.raises(NotImplementedError, match="Expected Twice to define"):
        layer.vjp(np.ones((1, 4, 2)))


def test_a_seed_repeats_a_training_and_others_do_not():
    x, y = data()
    runs = []
    for seed in (1, 1, 2):
        model = model_of()
        history = model.fit(x, y, epochs=3, batch_size=3, verbose=0, seed=seed)
        runs.append((model.get_weights(), history.history["loss"]))
    assert all(np.array_equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))
    assert runs[0][1] == runs[1][1]
    assert runs[0][1] != runs[2][1]


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples():
    x, y = data(7)
    model = model_of()
    model.compile(optimizers.SGD(0.0))
    history = model.fit(x, y, batch_size=3, verbose=0)
    assert history.history["loss"][0] == pytest.approx(total_loss(model, x, y), rel=1e-6)
    assert model.evaluate(x, y, batch_size=2) == pytest.approx(total_loss(model, x, y), rel=1e-6)


def test_validation():
    x, y = data(10)
    split, given = model_of(), model_of()
    first = split.fit(x, y, epochs=2, verbose=0, seed=0, validation_split=0.3)
    second = given.fit(x[:7], y[:7], epochs=2, verbose=0, seed=0, validation_data=(x[7:], y[7:]))
    assert first.history == second.history
    assert first.history["val_loss"][-1] == pytest.approx(split.evaluate(x[7:], y[7:]))
    assert first.epoch == [0, 1]
    assert repr(first).startswith("<History of 2 epochs: loss ")


def test_early_stopping():
    x, y = data()
    model = model_of()
    model.compile(optimizers.SGD(50.0))  # far too long steps
    stopping = callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    before = model.evaluate(x, y)
    history = model.fit(
        x, y, epochs=50, verbose=0, seed=0, shuffle=False, batch_size=10, callbacks=[stopping]
    )
    assert stopping.stopped_epoch == len(history.epoch) - 1 < 49
    assert history.history["loss"][0] == pytest.approx(before)
    # The loss of an epoch is that before its one step: the best weights are those after the best epoch's.
    assert model.evaluate(x, y) == pytest.approx(history.history["loss"][stopping.best_epoch + 1])
    fresh = model_of()
    weights = fresh.get_weights()
    with pytest.raises(ValueError, match="whose val_loss a callback monitors"):
        fresh.fit(x, y, verbose=0, callbacks=[callbacks.EarlyStopping()])
    assert all(np.array_equal(a, b) for a, b in zip(weights, fresh.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("curve", "settings", "stopped", "best"),
    [
        ([5, 4, 3, 2, 1], {}, None, 4),
        ([5, 4, 4, 4, 4], {"patience": 2}, 3, 1),
        ([5, 4.95, 4.9, 4.85, 4.8], {"min_delta": 0.1, "patience": 1}, 1, 0),
        ([math.inf] * 5, {"patience": 1}, 1, 0),
        ([math.nan, 1, 0.5, 0.25, 0.2], {}, None, 4),
        ([math.nan] * 5, {"patience": 3}, 2, 0),
    ],
)
def test_when_early_stopping_stops(curve, settings, stopped, best, monkeypatch):
    model = types.SimpleNamespace(stop_training=False)
    stopping = callbacks.EarlyStopping("loss", **settings)
    stopping.model = model
    for epoch, loss in enumerate(curve):
        stopping.on_epoch_end(epoch, {"loss": loss})
        if model.stop_training:
            break
    assert (stopping.stopped_epoch, stopping.best_epoch) == (stopped, best)
    if math.isnan(curve[0]):
        return  # which Keras takes for the best there is
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
    theirs = keras.callbacks.EarlyStopping("loss", mode="min", **settings)
    theirs.set_model(types.SimpleNamespace(stop_training=False))
    theirs.on_train_begin()
    for epoch, loss in enumerate(curve):
        theirs.on_epoch_end(epoch, {"loss": loss})
        if theirs.model.stop_training:
            break
    assert theirs.stopped_epoch == (stopped or 0)


def test_callbacks_are_told_and_can_stop():
    told = []

    class Watcher(callbacks.Callback):
        def on_train_begin(self):
            told.append("begin")

        def on_epoch_end(self, epoch, logs):
            told.append((epoch, sorted(logs)))
            self.model.stop_training = epoch == 1

        def on_train_end(self):
            told.append("end")

    x, y = data()
    model_of().fit(x, y, epochs=9, verbose=0, callbacks=[Watcher()])
    assert told == ["begin", (0, ["loss"]), (1, ["loss"]), "end"]


def test_what_is_printed(monkeypatch, capsys):
    x, y = data()
    model_of().fit(x, y, epochs=2, verbose=2, validation_split=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "val_loss" in lines[0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    model_of().fit(x, y)
    assert capsys.readouterr().out.startswith("epoch 1/1  loss ")


def test_a_bar_where_there_is_tqdm(monkeypatch, capsys):
    steps = []

    class Bar:
        def __init__(self, total, desc):
            steps.append((total, desc))

        def set_postfix(self, values=None, **more):
            assert values or more

        def update(self):
            steps.append("step")

        def close(self):
            steps.append("closed")

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tqdm")
    x, y = data()
    model_of().fit(x, y, batch_size=4)
    assert steps == [(3, "epoch 1/1"), "step", "step", "step", "closed"]
    assert capsys.readouterr().out == ""


def test_predict_is_the_call_in_parts():
    model, (x, _) = model_of(), data(7)
    np.testing.assert_array_equal(model.predict(x, batch_size=7), model(x))
    np.testing.assert_allclose(model.predict(x, batch_size=3), model(x), rtol=1e-5, atol=1e-6)
    assert model.predict(x[:0]).shape == (0, 24, 2)


@pytest.mark.parametrize("module", ["torch", "array_api_strict"])
def test_other_libraries_train_too(module):
    xp = pytest.importorskip(module, reason="not installed: pip install gpuconv[peers]")
    x, y = data()
    ours, theirs = model_of(), model_of()
    first = ours.fit(x, y, epochs=2, verbose=0, seed=0)
    second = theirs.fit(xp.asarray(x), xp.asarray(y), epochs=2, verbose=0, seed=0)
    assert type(theirs.weights[0]).__module__.partition(".")[0] == module
    np.testing.assert_allclose(first.history["loss"], second.history["loss"], rtol=1e-5)


BAD_FITS = {
    "not compiled": (ValueError, "to be compiled", {"model": layers.Sequential([layers.Conv1D(1, 3)])}),
    "samples": (ValueError, "Expected as many x as y", {"y": data()[1][:9]}),
    "targets": (ValueError, "the predictions' shape", {"y": data()[1][:, :9]}),
    "two libraries": (TypeError, "one library", {"y": "array_api_strict"}),
    "epochs": (ValueError, "epochs to be at least 0", {"epochs": -1}),
    "batch": (ValueError, "batch_size to be at least 1", {"batch_size": 0}),
    "split": (ValueError, "from 0 to below 1", {"validation_split": 1.0}),
    "empty split": (ValueError, "samples on both sides", {"validation_split": 0.99}),
    "verbose": (ValueError, "verbose to be 0, 1 or 2", {"verbose": 3}),
    "seed": (ValueError, "seed to be at least 0", {"seed": -1}),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_trainings_that_cannot_be(name):
    error, words, options = BAD_FITS[name]
    x, y = data()
    options = {"model": model_of(), "x": x, "y": y, "verbose": 0} | options
    if isinstance(options["y"], str):
        options["y"] = pytest.importorskip(options["y"]).asarray(y)
    model = options.pop("model")
    before = model.get_weights() if model.built else None
    with pytest.raises(error, match=words):
        model.fit(**options)
    if before is not None:
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_other_parameters_than_those_of_the_last_step_are_refused():
    x, y = data()
    model = model_of()
    model.train_on_batch(x, y)
    model.layers[1].trainable = False
    with pytest.raises(ValueError, match="Call compile again"):
        model.train_on_batch(x, y)
    model.compile("adam")
    model.train_on_batch(x, y)


# --- beside Keras --------------------------------------------------------------------------------


def autoencoder(kind):
    """Keras' example "Timeseries anomaly detection using an autoencoder", without its dropout."""
    return [
        kind.Conv1D(32, 7, 2, "same", activation="relu"),
        kind.Conv1D(16, 7, 2, "same", activation="relu"),
        kind.Conv1DTranspose(16, 7, 2, "same", activation="relu"),
        kind.Conv1DTranspose(32, 7, 2, "same", activation="relu"),
        kind.Conv1DTranspose(1, 7, padding="same"),
    ]


def series(samples=64, length=288):
    """Days of a noisy daily rhythm."""
    rng = np.random.default_rng(7)
    t = np.arange(length) / length
    phase, size = rng.uniform(0, 1, (2, samples, 1))
    wave = size * np.sin(2 * np.pi * (t + phase)) + 0.3 * np.sin(2 * np.pi * (8 * t + phase))
    return (wave + 0.1 * rng.standard_normal((samples, length)))[:, :, None].astype(np.float32)


def test_the_anomaly_autoencoder_learns_as_in_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
    x = series()
    theirs = keras.Sequential([keras.Input((288, 1)), *autoencoder(keras.layers)])
    ours = layers.Sequential([layers.Input((288, 1)), *autoencoder(layers)])
    ours.set_weights([np.asarray(weight.value) for weight in theirs.weights])
    theirs.compile(keras.optimizers.Adam(learning_rate=0.001), "mse")
    ours.compile(optimizers.Adam(0.001), "mse")
    curves = []
    for step in range(50):
        batch = x[step * 16 % 64 : step * 16 % 64 + 16]
        curves.append((float(ours.train_on_batch(batch, batch)), float(theirs.train_on_batch(batch, batch))))
    ours_curve, theirs_curve = np.array(curves).T
    assert ours_curve[-1] < 0.5 * ours_curve[0]
    np.testing.assert_allclose(ours_curve, theirs_curve, rtol=1e-3)


def test_the_anomaly_autoencoder_finds_the_anomaly():
    """With its dropout, from start to finish: what was never seen is reconstructed worst."""
    x = series(128)
    model = layers.Sequential(
        [
            layers.Input((288, 1)),
            layers.Conv1D(32, 7, 2, "same", activation="relu", seed=1),
            layers.Dropout(0.2, seed=2),
            layers.Conv1D(16, 7, 2, "same", activation="relu", seed=3),
            layers.Conv1DTranspose(16, 7, 2, "same", activation="relu", seed=4),
            layers.Dropout(0.2, seed=5),
            layers.Conv1DTranspose(32, 7, 2, "same", activation="relu", seed=6),
            layers.Conv1DTranspose(1, 7, padding="same", seed=7),
        ]
    )
    model.compile(optimizers.Adam(0.003), "mse")
    stopping = callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    options = {"epochs": 40, "batch_size": 32, "validation_split": 0.1, "verbose": 0, "seed": 0}
    history = model.fit(x, x, callbacks=[stopping], **options)
    assert history.history["val_loss"][-1] < 0.2 * history.history["val_loss"][0]
    test = series(128)[-4:]
    test[2, 100:140] += 3
    errors = abs(model.predict(test) - test).mean(axis=(1, 2))
    assert errors.argmax() == 2

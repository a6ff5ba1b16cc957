"""Layers against XLA's own convolution and NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

from jaxhypernas.numerics.convolution import conv, depthwise_conv
from jaxhypernas.numerics.convolution_forms import as_matrix
from jaxhypernas.numerics.dynamic_convolution import crop, dynamic_conv
from jaxhypernas.numerics.losses import cross_entropy
from jaxhypernas.numerics.normalisation import (
    affine_norm,
    batch_norm,
    conv_affine_norm,
    conv_norm,
)
from jaxhypernas.numerics.pooling import (
    average_pool,
    average_pool_3x3,
    max_pool_3x3,
    mean_of_corners,
)

NHWC = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_gradients(f, x, w, g):
    """f(x, w), and its products with g."""
    y, pull = jax.vjp(f, x, w)
    return y, *pull(g)


def close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


# --- conv ---------------------------------------------------------------------


def native(x, w, stride=1):
    pads = [(w.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(
        x, w, (stride, stride), pads, dimension_numbers=NHWC
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("K", [1, 3, 5, 7])
def test_conv_equals_the_native_one(K, stride):
    for H, W in ((8, 7), (3, 4)):  # the second smaller than the kernel
        x, w = normal(0, 2, H, W, 3), normal(1, K, K, 3, 4)
        g = normal(2, 2, -(-H // stride), -(-W // stride), 4)
        run = partial(jax.jit, static_argnums=0)(value_and_gradients)
        close(
            run(partial(conv, stride=stride), x, w, g),
            run(partial(native, stride=stride), x, w, g),
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_under_vmap_is_a_loop(stride):
    x, w = normal(0, 3, 2, 7, 6, 2), normal(1, 3, 3, 3, 2, 4)
    g = normal(2, 3, 2, *(-(-n // stride) for n in (7, 6)), 4)
    f = jax.jit(partial(value_and_gradients, partial(conv, stride=stride)))
    loop = [
        jnp.stack(part)
        for part in zip(
            *(f(*args) for args in zip(x, w, g, strict=True)), strict=True
        )
    ]
    close(jax.jit(jax.vmap(f))(x, w, g), loop)
    shared = jax.jit(jax.vmap(f, (None, 0, 0)))(
        x[0], w, g
    )  # every candidate sees one batch
    close([part[0] for part in shared], [part[0] for part in loop])


def test_conv_by_finite_differences():
    x, w = normal(0, 1, 5, 4, 2), normal(1, 3, 3, 2, 2)
    jax.test_util.check_grads(
        partial(conv, stride=2),
        (x, w),
        order=1,
        modes=["rev"],
        rtol=2e-2,
        atol=2e-2,
    )


# --- dynamic_conv -------------------------------------------------------------

K, H, W, EXTENT = 5, 6, 7, 13
PAIRS = [(k, d) for k in (1, 3, 5) for d in (1, 2, 3)]
MIXED = [
    (PAIRS[i], PAIRS[(i + shift) % 9]) for shift in (0, 1, 5) for i in range(9)
]  # of height and of width
SETTINGS = jnp.array([((k, m), (d, e)) for (k, d), (m, e) in MIXED], jnp.int32)


def cropped(x, w, kernel, dilation):
    """By XLA, with kernel and dilation as Python numbers."""
    a, b = (K // 2 - k // 2 for k in kernel)
    pads = [
        (k // 2 * d, k // 2 * d) for k, d in zip(kernel, dilation, strict=True)
    ]
    w = w[a : K - a, b : K - b]
    return lax.conv_general_dilated(
        x, w, (1, 1), pads, rhs_dilation=dilation, dimension_numbers=NHWC
    )


def native_form(x, w, kernel, dilation):
    """As compiled for other platforms than CPU."""
    return native(x, crop(w, kernel, dilation, EXTENT))


def dynamic_form(x, w, kernel, dilation):
    return dynamic_conv(x, w, kernel, dilation, EXTENT)


FORMS = {"taps": dynamic_form, "native": native_form, "matrix": as_matrix}
X, WEIGHT, G = (
    normal(0, 2, H, W, 3),
    normal(1, K, K, 3, 4),
    normal(2, 2, H, W, 4),
)


def run_form(form, x, w, g, setting):
    return value_and_gradients(
        lambda x, w: form(x, w, setting[0], setting[1]), x, w, g
    )


@pytest.fixture(scope="module")
def expected():
    """Value and gradients of each setting, by XLA's dilated convolution."""
    rows = []
    for kernel, dilation in np.asarray(SETTINGS).tolist():
        rows.append(
            value_and_gradients(
                partial(cropped, kernel=kernel, dilation=dilation),
                X,
                WEIGHT,
                G,
            )
        )
    return [np.stack(part) for part in zip(*rows, strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_dynamic_conv_equals_a_cropped_and_dilated_one(form, expected):
    traced = []

    def counted(*args):
        traced.append(1)
        return run_form(FORMS[form], *args)

    run = jax.jit(counted)
    rows = [run(X, WEIGHT, G, setting) for setting in SETTINGS]
    close([np.stack(part) for part in zip(*rows, strict=True)], expected)
    assert len(traced) == 1, "one program for all settings"


@pytest.mark.parametrize("form", FORMS)
def test_dynamic_conv_under_vmap(form, expected):
    f = partial(run_form, FORMS[form])
    close(
        jax.jit(jax.vmap(f, (None, None, None, 0)))(X, WEIGHT, G, SETTINGS),
        expected,
    )


def test_dynamic_conv_with_all_batched():
    some = SETTINGS[::5]
    A = len(some)
    x, w, g = (
        normal(3, A, *X.shape),
        normal(4, A, *WEIGHT.shape),
        normal(5, A, *G.shape),
    )
    taps, *others = [
        jax.jit(jax.vmap(partial(run_form, form)))(x, w, g, some)
        for form in FORMS.values()
    ]
    for other in others:
        close(other, taps)


@pytest.mark.parametrize("size", [(2, 2), (4, 3), (1, 16)])
def test_dynamic_conv_of_small_images(size):
    x, g = normal(6, 2, *size, 3), normal(7, 2, *size, 4)
    both = [
        jax.jit(jax.vmap(partial(run_form, form), (None, None, None, 0)))(
            x, WEIGHT, g, SETTINGS
        )
        for form in (dynamic_form, native_form)
    ]
    close(*both)


@pytest.mark.parametrize("form", FORMS)
def test_weights_outside_the_centre_get_exactly_no_gradient(form):
    dw = np.asarray(
        jax.jit(
            jax.vmap(partial(run_form, FORMS[form]), (None, None, None, 0))
        )(X, WEIGHT, G, SETTINGS)[2]
    )
    for (kernel, _), gradient in zip(
        np.asarray(SETTINGS).tolist(), dw, strict=True
    ):
        a, b = (K // 2 - k // 2 for k in kernel)
        centre = np.zeros((K, K), bool)
        centre[a : K - a, b : K - b] = True
        assert (gradient[~centre] == 0).all() and (gradient[centre] != 0).any()


@pytest.mark.parametrize("form", FORMS)
def test_weights_outside_the_centre_are_not_read(form):
    w = (
        WEIGHT.at[0]
        .set(1e30)
        .at[-1]
        .set(1e30)
        .at[:, 0]
        .set(1e30)
        .at[:, -1]
        .set(1e30)
    )
    setting = jnp.array([[3, 3], [2, 1]], jnp.int32)
    run = jax.jit(partial(run_form, FORMS[form]))
    close(run(X, w, G, setting)[:2], run(X, WEIGHT, G, setting)[:2])


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_get_a_native_convolution(platform):
    """Programs for accelerators have one convolution and no loop; for CPU a loop."""

    def text(platform):
        traced = jax.jit(dynamic_form).trace(X, WEIGHT, *SETTINGS[0])
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert text(platform).count(
        "stablehlo.convolution"
    ) == 1 and "stablehlo.while" not in text(platform)
    assert "stablehlo.convolution" not in text(
        "cpu"
    ) and "stablehlo.while" in text("cpu")


# --- depthwise_conv and pools -------------------------------------------------


def grouped(x, w, dilation=1):
    pads = [(n // 2 * dilation,) * 2 for n in w.shape[:2]]
    return lax.conv_general_dilated(
        x,
        w[:, :, None],
        (1, 1),
        pads,
        rhs_dilation=(dilation,) * 2,
        dimension_numbers=NHWC,
        feature_group_count=w.shape[2],
    )


@pytest.mark.parametrize(
    ("kernel", "dilation"),
    [((3, 3), 1), ((3, 3), 2), ((7, 7), 1), ((1, 5), 2), ((5, 3), 3)],
)
def test_depthwise_conv_equals_a_grouped_one(kernel, dilation):
    for H, W in ((8, 7), (3, 4)):  # the second smaller than the kernel
        x, w, g = (
            normal(0, 2, H, W, 3),
            normal(1, *kernel, 3),
            normal(2, 2, H, W, 3),
        )
        run = partial(jax.jit, static_argnums=0)(value_and_gradients)
        close(
            run(partial(depthwise_conv, dilation=dilation), x, w, g),
            run(partial(grouped, dilation=dilation), x, w, g),
        )


def test_depthwise_conv_under_vmap_is_a_loop():
    x, w, g = (
        normal(0, 3, 2, 7, 6, 4),
        normal(1, 3, 3, 5, 4),
        normal(2, 3, 2, 7, 6, 4),
    )
    f = jax.jit(
        partial(value_and_gradients, partial(depthwise_conv, dilation=2))
    )
    loop = [
        jnp.stack(part)
        for part in zip(
            *(f(*args) for args in zip(x, w, g, strict=True)), strict=True
        )
    ]
    close(jax.jit(jax.vmap(f))(x, w, g), loop)
    shared = jax.jit(jax.vmap(f, (None, 0, 0)))(x[0], w, g)
    close([part[0] for part in shared], [part[0] for part in loop])


def test_depthwise_conv_elsewhere_is_a_grouped_one():
    """One native convolution in programs for accelerators, none with groups on CPU."""
    x, w = normal(0, 2, 8, 8, 4), normal(1, 3, 3, 4)

    def text(platform):
        return (
            jax.jit(depthwise_conv)
            .trace(x, w)
            .lower(lowering_platforms=(platform,))
            .as_text()
        )

    for platform in ("tpu", "cuda"):
        assert text(platform).count("stablehlo.convolution") == 1
        assert "feature_group_count = 4" in text(platform)
    assert "feature_group_count = 4" not in text("cpu")


def flax_average(x):
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an int64
        return linen.avg_pool(
            x, (3, 3), padding="SAME", count_include_pad=False
        )


POOLS = {
    "average": (average_pool_3x3, flax_average),
    "max": (
        max_pool_3x3,
        lambda x: linen.max_pool(x, (3, 3), padding="SAME"),
    ),
}


@pytest.mark.parametrize("shape", [(2, 8, 7, 3), (3, 2, 2, 4), (2, 1, 3, 1)])
@pytest.mark.parametrize("pool", POOLS)
def test_pools_equal_those_of_flax(pool, shape):
    x, g = normal(0, *shape) - 1, normal(1, *shape)
    found, expected = (
        jax.jit(lambda x, g, f=f: (f(x), *jax.vjp(f, x)[1](g)))(x, g)
        for f in POOLS[pool]
    )
    close(found, expected)


@pytest.mark.parametrize("pool", POOLS)
def test_pools_of_equal_values(pool):
    """Nothing enters from outside the image; gradients of ties add up to their sum."""
    x, g = jnp.full((2, 5, 4, 3), -2.5), normal(1, 2, 5, 4, 3)
    y, pull = jax.vjp(max_pool_3x3 if pool == "max" else average_pool_3x3, x)
    np.testing.assert_allclose(y, x, rtol=1e-6)
    np.testing.assert_allclose(pull(g)[0].sum(), g.sum(), rtol=1e-4)


# --- the rest -----------------------------------------------------------------


def test_batch_norm():
    x = (
        normal(0, 8, 5, 6, 3) * jnp.array([1.0, 10.0, 0.1])[None, None, None]
        + 3
    )
    y, wide = jax.jit(batch_norm)(x), np.asarray(x, np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(
        wide.var((0, 1, 2)) + 1e-5
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(batch_norm)(x, 0.5)[..., 0].std(),
        (wide.var((0, 1, 2)) / (wide.var((0, 1, 2)) + 0.5))[0] ** 0.5,
        rtol=1e-4,
    )


def test_batch_norm_keeps_dead_channels():
    x = normal(0, 4, 5, 6, 3).at[..., 1].set(0)
    y = batch_norm(x)
    assert (y[..., 1] == 0).all() and (y[..., 0] != 0).all()
    gradient = jax.grad(lambda x: (batch_norm(x) * normal(1, *x.shape)).sum())(
        x
    )
    assert np.isfinite(gradient).all()


def test_affine_norm_is_batch_norm():
    """In float64, far from zero, with a channel of zeros; in float32 that stays 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 6, 3)) * np.array([[[[1, 10, 0]]]]) + np.array(
        [[[[30, -30, 0]]]]
    )
    w, g = rng.normal(size=(3, 3, 3, 4)), rng.normal(size=(8, 3, 3, 4))

    def norm(x):
        factor, summand = affine_norm(x)
        return x * factor + summand

    def run(norm, conv_norm, x, w):
        return conv_norm(norm(x), w, 2, True)

    with jax.enable_x64(True):
        found = value_and_gradients(
            partial(run, norm, conv_affine_norm),
            jnp.asarray(x),
            jnp.asarray(w),
            g,
        )
        expected = value_and_gradients(
            partial(run, batch_norm, conv_norm),
            jnp.asarray(x),
            jnp.asarray(w),
            g,
        )
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-9)
    assert (norm(jnp.asarray(x, jnp.float32))[..., 2] == 0).all()


@pytest.mark.parametrize(("H", "W"), [(4, 6), (5, 6), (4, 7), (5, 7), (2, 3)])
@pytest.mark.parametrize("average_pool", [average_pool, mean_of_corners])
def test_average_pool(average_pool, H, W):
    x = normal(0, 2, H, W, 3)
    expected = np.zeros((2, H // 2, W // 2, 3), np.float32)
    for i in range(H // 2):
        for j in range(W // 2):
            expected[:, i, j] = np.asarray(x)[
                :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2
            ].mean((1, 2))
    np.testing.assert_allclose(average_pool(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 1000])
def test_cross_entropy(scale):
    logits, y = normal(0, 9, 5) * scale, jnp.arange(9, dtype=jnp.int32) % 5
    wide = np.asarray(logits, np.float64)
    wide -= wide.max(1, keepdims=True)
    log_p = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    np.testing.assert_allclose(
        cross_entropy(logits, y), -log_p[np.arange(9), y].mean(), rtol=1e-5
    )
    gradient = (np.exp(log_p) - np.eye(5)[y]) / 9
    np.testing.assert_allclose(
        jax.grad(cross_entropy)(logits, y), gradient, atol=1e-6
    )

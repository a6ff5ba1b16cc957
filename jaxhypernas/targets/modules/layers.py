"""Layers of exported networks. The code below the imports is copied into them."""

from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx


def norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """BatchNorm without affine parameters."""
    return nnx.BatchNorm(
        channels,
        use_running_average=True,
        use_bias=False,
        use_scale=False,
        use_fast_variance=False,
        rngs=rngs,
    )


class ConvNorm(nnx.Module):
    """ReLU, if asked for, convolution, BatchNorm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        relu: bool = True,
        rngs: nnx.Rngs,
    ):
        self.relu = relu
        self.conv = nnx.Conv(
            inputs,
            outputs,
            kernel,
            strides=stride,
            padding=[(size // 2, size // 2) for size in kernel],
            use_bias=False,
            rngs=rngs,
        )
        self.norm = norm(outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns y_BxHxWxC for x_BxHxWxC."""
        return self.norm(self.conv(jax.nn.relu(x) if self.relu else x))


class Separable(nnx.Module):
    """Separable convolutions: each ReLU, depthwise, 1x1, BatchNorm."""

    def __init__(
        self,
        channels: int,
        size: int,
        times: int,
        dilation: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        border = size // 2 * dilation
        self.deep = nnx.List(
            nnx.Conv(
                channels,
                channels,
                (size, size),
                padding=[(border, border)] * 2,
                kernel_dilation=dilation,
                feature_group_count=channels,
                use_bias=False,
                rngs=rngs,
            )
            for _ in range(times)
        )
        self.wide = nnx.List(
            ConvNorm(channels, channels, (1, 1), relu=False, rngs=rngs)
            for _ in range(times)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns y_BxHxWxC for x_BxHxWxC."""
        for deep, wide in zip(self.deep, self.wide, strict=True):
            x = wide(deep(jax.nn.relu(x)))
        return x


class Chain(nnx.Module):
    """Layers one after the other."""

    def __init__(self, *layers: ConvNorm):
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns y_BxHxWxC for x_BxHxWxC."""
        return reduce(lambda x, layer: layer(x), self.layers, x)


def average_pool_3x3(x: jax.Array) -> jax.Array:
    """Means of 3x3 windows, over their positions inside the image."""
    return nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool_3x3(x: jax.Array) -> jax.Array:
    """Largest values of 3x3 windows."""
    return nnx.max_pool(x, (3, 3), padding="SAME")


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 windows; an odd last row or column is dropped."""
    return nnx.avg_pool(x, (2, 2), (2, 2))


class Reduce(nnx.Module):
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.a = ConvNorm(inputs, outputs, (3, 3), stride=2, rngs=rngs)
        self.b = ConvNorm(outputs, outputs, (3, 3), rngs=rngs)
        self.skip = nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns y_BxHxWxC for x_BxHxWxC."""
        return self.b(self.a(x)) + self.skip(halve(x))


class Head(nnx.Module):
    """BatchNorm, ReLU, mean over positions, linear."""

    def __init__(self, channels: int, classes: int, *, rngs: nnx.Rngs):
        self.norm = norm(channels, rngs)
        self.linear = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits_BxL for x_BxHxWxC."""
        return self.linear(jax.nn.relu(self.norm(x)).mean((1, 2)))


def concatenate(*states: jax.Array) -> jax.Array:
    """States side by side, along their channels."""
    return jnp.concatenate(states, -1)

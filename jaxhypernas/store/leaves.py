"""Pytrees of JAX arrays and typed PRNG keys as NumPy arrays, with checksums."""

import json
import zlib
from functools import partial
from typing import Any

import jax
import numpy as np

_KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
"""JAX's implementations of PRNG keys."""


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, such as ``['w'][0]``.

    Args:
        tree: Any pytree.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def kind(leaf: Any) -> str:
    """Returns dtype and shape of a leaf as text, such as ``float32[3, 4]``.

    Args:
        leaf: An array, a typed key or a ShapeDtypeStruct.
    """
    return f"{leaf.dtype}{list(leaf.shape)}"


def to_numpy(leaf: Any) -> np.ndarray:
    """Copies a leaf to the host; a typed key as its data.

    Args:
        leaf: An array or a typed key.
    """
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def zeros(like: Any) -> np.ndarray:
    """Returns zeros of the shape and dtype that `to_numpy` gives.

    Args:
        like: An array, a typed key or a ShapeDtypeStruct.
    """
    if _is_key(like):
        like = jax.eval_shape(jax.random.key_data, like)
    return np.zeros(like.shape, like.dtype)


def to_device(array: np.ndarray, like: Any) -> jax.Array:
    """Reverses `to_numpy`.

    Args:
        array: A leaf as `to_numpy` gave it.
        like: A leaf of the dtype to return. Its sharding is used if it has one;
            otherwise the leaf goes to the first device.
    """
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        first = jax.local_devices()[0]
        sharding = jax.sharding.SingleDeviceSharding(first)
    placed = jax.device_put(array, sharding)
    if _is_key(like):
        return jax.random.wrap_key_data(placed, impl=_key_kind(like))
    return placed


def checksums(kinds: Any, arrays: Any) -> dict[str, list]:
    """Describes the leaves of a state, so that a flipped byte shows.

    Args:
        kinds: The pytree of `kind` of each leaf.
        arrays: The same pytree of `to_numpy` of each leaf.

    Returns:
        For each path the kind and the CRC-32 of the bytes.
    """
    # The kind of a typed key is lost in its array.
    kind_of = by_path(kinds)
    return {
        path: [kind_of[path], zlib.crc32(array.tobytes())]
        for path, array in by_path(arrays).items()
    }


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a dictionary with a checksum, to be stored as JSON.

    Args:
        body: The dictionary.
    """
    # Sorted, as JSON read back may have its names in another order.
    text = json.dumps(body, sort_keys=True)
    return {**body, "crc32": zlib.crc32(text.encode())}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_kind(like: Any) -> str:
    """The implementation that a typed key's dtype belongs to."""

    def dtype_of(impl: str) -> Any:
        return jax.eval_shape(partial(jax.random.key, 0, impl=impl)).dtype

    # JAX names no public way from a key's dtype to its implementation.
    return next(impl for impl in _KEY_KINDS if dtype_of(impl) == like.dtype)

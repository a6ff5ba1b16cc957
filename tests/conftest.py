"""A strict JAX on four simulated CPU devices, set before any test imports it."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    user_cache = Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    )
    jax.config.update(
        "jax_compilation_cache_dir", str(user_cache / "jaxhypernas" / "xla")
    )
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    """Side by side, a file's tests run in one process, as they share compiled programs; those of the matrix don't."""
    for item in items:
        if not item.path.name.startswith("test_matrix"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(scope="module")
def quick_compiler():
    """As fast as compiling gets, for tests whose programs run for less time than they take to compile."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of benchmark data beside the checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(
            "needs the benchmark data in ../shared, beside the checkout"
        )
    return path

"""Prepares JAX for a run, when a run first needs a device."""

import logging
import sys

import jax
import joblib
from jax.experimental.compilation_cache import compilation_cache

from jaxhypernas.numerics.cpu import cache
from jaxhypernas.types import UserError

NUMBERS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_default_matmul_precision": None,
}
"""Settings of JAX on which results depend, with the values of all runs."""

_done = False


def set_up() -> None:
    """Makes each core that this process may use a device; keeps programs; quiets logs.

    Settings that the user made stay. The first call counts; later calls do nothing.
    Where JAX already holds a single CPU device, one line on standard error says so.
    """
    global _done
    if _done:
        return
    _done = True
    _use_all_cores()
    _keep_programs()
    # orbax logs the traceback of each error that it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def fix_numbers() -> None:
    """Gives the settings of JAX on which results depend the values of all runs.

    For the command line, whose process is its own; one line on standard error names
    the settings that the environment had changed.
    """
    changed = _changed()
    for name in changed:
        jax.config.update(name, NUMBERS[name])
    if changed:
        print(
            f"jaxhypernas: {', '.join(map(str.upper, changed))} would change results: "
            "ignored",
            file=sys.stderr,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether a program failed because it exceeds the memory of its device.

    Args:
        error: The failure.
    """
    is_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return is_jax and "RESOURCE_EXHAUSTED" in str(error)


def check_numbers() -> None:
    """Checks the settings of JAX on which results depend.

    Raises:
        UserError: One has another value than in all runs.
    """
    for name in _changed():
        raise UserError(
            f"{name}: it is {jax.config.values[name]!r} and would change results: set "
            f"it to {NUMBERS[name]!r} with jax.config.update"
        )


def _changed() -> list[str]:
    return [
        name
        for name, value in NUMBERS.items()
        if jax.config.values[name] != value
    ]


def _use_all_cores() -> None:
    # A container, or a cluster's job, may use some of the machine's cores only.
    cores = joblib.cpu_count()
    if jax.config.values["jax_num_cpu_devices"] >= 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        if jax.default_backend() == "cpu" and jax.device_count() < cores:
            print(
                f"jaxhypernas: JAX was used before the run was made, so {cores} cores "
                "are one device: make the Run first, or set jax_num_cpu_devices",
                file=sys.stderr,
            )


def _keep_programs() -> None:
    # Many of a run's programs are small, and all of them come again.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        directory = cache.folder() / "xla"
        jax.config.update("jax_compilation_cache_dir", str(directory))
    # JAX reads the settings once, when it first compiles: that may have been before.
    compilation_cache.reset_cache()

"""Prepares JAX for a run, when a run first needs a device."""

import logging
import os
import sys
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

_done = False


def set_up() -> None:
    """Makes every CPU core a device, keeps compiled programs on disk, quiets logs.

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


def _use_all_cores() -> None:
    cores = os.cpu_count() or 1
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
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        directory = Path(cache).expanduser() / "jaxhypernas" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(directory))
    # JAX reads the settings once, when it first compiles: that may have been before.
    compilation_cache.reset_cache()

"""Results do not depend on JAX's variables of the environment."""

import os
import subprocess
import sys

import jax
import pytest

from jaxhypernas.execution import devices
from jaxhypernas.types import UserError

SHOW = """
import jax
from jaxhypernas.execution import devices
devices.fix_numbers()
print({name: jax.config.values[name] for name in devices.NUMBERS})
"""


def test_the_command_line_ignores_them():
    environment = {
        **os.environ,
        "JAX_ENABLE_X64": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(devices.NUMBERS)
    assert done.stderr.count("\n") == 1
    for name in ("JAX_ENABLE_X64", "JAX_DEFAULT_PRNG_IMPL"):
        assert name in done.stderr


def test_a_program_of_the_user_is_told():
    devices.check_numbers()
    with (
        jax.enable_x64(True),
        pytest.raises(UserError, match="jax_enable_x64: it is True"),
    ):
        devices.check_numbers()

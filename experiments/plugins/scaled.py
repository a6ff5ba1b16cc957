"""A generator of your own: shared weights, scaled by the ops of the architecture.

    jaxhypernas search --plugin experiments/plugins/scaled.py \
        --space nasbench201 --generator scaled --generator.reach 0.5

phi is one set of weights that all architectures share, and a matrix that turns the
counts of an architecture's ops into a factor of each leaf: theta = factor * shared.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxhypernas import (
    GENERATORS,
    Generator,
    Plugin,
    Settings,
    Space,
    Target,
    UserError,
)
from jaxhypernas.generators.standalone import standalone


@dataclass(frozen=True)
class ScaledConfig(Settings):
    """Settings of the generator."""

    reach: float = 0.5
    """factors lie between 1 - reach and 1 + reach"""

    def check(self) -> None:
        """Raises `UserError` for a reach out of range."""
        if not 0 < self.reach < 1:
            raise UserError(f"reach: {self.reach} must be between 0 and 1")


def build(config: ScaledConfig, space: Space, target: Target) -> Generator:
    """Returns the generator."""
    shared = standalone(target.weight_spec, target.nodes)
    treedef = jax.tree.structure(target.weight_spec)
    example = jax.eval_shape(space.sample, jax.random.key(0), 1.0)
    ops = jax.eval_shape(space.graph, example).op_NxO.shape[1]

    def init(key):
        matrix_OxW = jnp.zeros((ops, treedef.num_leaves))
        return {"shared": shared.init(key), "matrix": matrix_OxW}

    def generate(phi, arch):
        count_O = space.graph(arch).op_NxO.sum(0).astype(jnp.float32)
        share_O = count_O / count_O.sum()
        factor_W = 1 + config.reach * jnp.tanh(share_O @ phi["matrix"])
        factors = treedef.unflatten(list(factor_W))
        return jax.tree.map(jnp.multiply, factors, phi["shared"])

    def decay(phi):
        return {"shared": shared.decay(phi["shared"]), "matrix": False}

    return Generator(init, generate, decay)


GENERATORS["scaled"] = Plugin(ScaledConfig, build)

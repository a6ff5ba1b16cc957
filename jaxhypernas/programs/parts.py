"""The parts of a run: all that its configuration names, for some images and devices.

`build` is pure and needs no data, only the shape of its images; the programs of a run
and the programs compiled ahead of time come from the same parts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxhypernas.config import Config
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.mesh import make_mesh
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.search import STRATEGIES
from jaxhypernas.store import files
from jaxhypernas.types import (
    Generator,
    ImageShape,
    Settings,
    Space,
    Strategy,
    Target,
    UserError,
)


class Networks(NamedTuple):
    """Architectures, their networks, and the generator of their weights."""

    space: Space
    """The architectures."""

    target: Target
    """The networks, in the form chosen for the devices."""

    generator: Generator
    """The generator of their weights."""


class Parts(NamedTuple):
    """All that a configuration names."""

    config: Config
    """The configuration."""

    image: ImageShape
    """Height, width and channels of an image."""

    classes: int
    """Number of classes."""

    searched: Networks
    """The networks that are scored."""

    trained: Networks
    """The networks that the generator is trained on: those that are scored, or smaller
    ones, or the network of all paths."""

    strategy: Strategy
    """The search."""

    mesh: Mesh
    """All devices of all processes: they train together."""

    local_mesh: Mesh
    """Devices of this process: they score its share of the candidates."""

    chunk: int
    """Candidates side by side on a device."""

    form: str
    """Name of the target's form."""

    @property
    def key(self) -> jax.Array:
        """The key from which all randomness comes."""
        return jax.random.key(self.config.seed)

    @property
    def replicated(self) -> NamedSharding:
        """The same array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def replicated_here(self) -> NamedSharding:
        """The same array on every device of this process."""
        return NamedSharding(self.local_mesh, PartitionSpec())


def build(
    config: Config,
    image: ImageShape,
    classes: int,
    devices: Sequence[jax.Device] | None = None,
) -> Parts:
    """Builds the parts of a run.

    Args:
        config: The configuration.
        image: Height, width and channels of an image.
        classes: Number of classes.
        devices: The devices, as if one process had all of them; None: all devices of
            all processes.

    Returns:
        The parts.

    Raises:
        UserError: Fields of the configuration do not fit each other, the images or the
            devices.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"distributed: JAX runs in {jax.process_count()} processes: give all of "
            "them --distributed"
        )
    try:
        everywhere = jax.devices() if devices is None else devices
    except RuntimeError as error:
        raise UserError(
            f"JAX_PLATFORMS: JAX finds no such device ({files.one_line(error)})"
        ) from None
    here = jax.local_devices() if devices is None else devices
    platform = everywhere[0].platform

    def networks(settings: Settings) -> tuple[Networks, int, str]:
        family = FAMILIES[config.names["space"]]
        space, target = family.build(settings, image, classes)
        chunk, form, target = choose(config.execution, target, platform)
        plugin = GENERATORS[config.names["generator"]]
        generator = plugin.build(config.generator, space, target)
        return Networks(space, target, generator), chunk, form

    searched, chunk, form = networks(config.space)
    if config.data.stream and not searched.generator.trained:
        raise UserError(
            "data.stream: candidates that are trained from scratch need all images "
            "on a device: set it to False"
        )
    train_config = FAMILIES[config.names["space"]].train_config(config.space)
    if train_config == config.space:
        trained = searched
    else:
        trained, _, _ = networks(train_config)
        _check_same_parameters(config, searched.generator, trained.generator)

    plugin = STRATEGIES[config.names["strategy"]]
    strategy = plugin.build(config.strategy, searched.space, config.search)
    return Parts(
        config=config,
        image=image,
        classes=classes,
        searched=searched,
        trained=_with_dropped_paths(config, trained),
        strategy=strategy,
        mesh=make_mesh(
            devices_per_candidate(config, len(everywhere)), everywhere
        ),
        local_mesh=make_mesh(devices=here),
        chunk=chunk,
        form=form,
    )


def devices_per_candidate(config: Config, devices: int) -> int:
    """Returns how many devices share the images of an architecture in training.

    Devices split the architectures of a step as far as these divide among them, and
    then the images of an architecture.

    Args:
        config: The configuration.
        devices: Number of devices.
    """
    return devices // math.gcd(devices, config.train.architectures)


def _check_same_parameters(
    config: Config, searched: Generator, trained: Generator
) -> None:
    """Raises UserError if phi depends on the sizes of the networks."""
    key = jax.random.key(0)
    if jax.eval_shape(searched.init, key) != jax.eval_shape(trained.init, key):
        raise UserError(
            f"space.train_nodes: the parameters of {config.names['generator']} depend "
            "on the number of nodes: set it to 0"
        )


def _with_dropped_paths(config: Config, trained: Networks) -> Networks:
    """The network of all paths, where the configuration asks for it."""
    if not config.train.path_dropout:
        return trained
    if trained.target.relaxed is None:
        raise UserError(
            f"train.path_dropout: {config.names['space']} has no network of all "
            "paths: set it to 0"
        )
    target = trained.target._replace(apply=trained.target.relaxed)
    return trained._replace(target=target)

"""What a configuration names, built when it is first used: data, space, target, generator, strategy, mesh."""

import math
from collections import abc
from dataclasses import replace
from functools import cached_property, partial

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxhypernas import search
from jaxhypernas.config.config import Config
from jaxhypernas.data import dataset as data
from jaxhypernas.data import loader
from jaxhypernas.execution import candidates as predict
from jaxhypernas.execution.candidates import (
    bind,
    mean_candidates,
    mean_over_mesh,
    split_images,
)
from jaxhypernas.execution.mesh import (
    ARCH,
    DATA,
    PROCESS,
    by_process,
    make_mesh,
)
from jaxhypernas.generators import GENERATORS
from jaxhypernas.programs.scoring import Batches, make_batches
from jaxhypernas.programs.training import (
    Images,
    Segment,
    TrainState,
    init_state,
    keys,
    make_optimizer,
    make_run,
)
from jaxhypernas.spaces import SPACES
from jaxhypernas.targets import TARGETS
from jaxhypernas.types import Generator, Space, Target, UserError


def images_shared(config: Config, devices: int) -> int:
    """How many of the devices share the images of an architecture in training."""
    return devices // math.gcd(devices, config.train.architectures)


class Components:
    """The parts of a run."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def dataset(self) -> data.Dataset:
        """The images, split."""
        return data.load(self.config.data, self.config.seed)

    @cached_property
    def space(self):
        """The search space."""
        return SPACES[self.config.space](
            self.config, self.dataset.image, self.dataset.classes
        )

    @cached_property
    def strategy(self):
        """The search."""
        return search.STRATEGIES[self.config.strategy](
            self.space, self.config.search
        )

    @property
    def _platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    @cached_property
    def _execution(self) -> tuple[int, str, Target]:
        target = TARGETS[self.config.space](
            self.config, self.dataset.image, self.dataset.classes
        )
        return predict.choose(self.config.execution, target, self._platform)

    @property
    def chunk(self) -> int:
        """Candidates side by side on a device."""
        return self._execution[0]

    @property
    def form(self) -> str:
        """How candidates run."""
        return self._execution[1]

    @property
    def target(self) -> Target:
        """The family of networks, in the form chosen."""
        return self._execution[2]

    @cached_property
    def generator(self):
        """What writes their weights."""
        return GENERATORS[self.config.generator](
            self.config, self.space, self.target
        )

    @cached_property
    def trained(self) -> tuple[Space, Target, Generator]:
        """Space, target and generator of training: on smaller cells or dropped paths, where the configuration says so.

        Raises:
            UserError: the space has no network of all paths, or the generator depends on the number of nodes.
        """
        cells = self.config.cells
        if self.config.train.path_dropout:
            if self.target.relaxed is None:
                raise UserError(
                    f"train.path_dropout: {self.config.space} has no network of all paths: set it to 0"
                )
            return (
                self.space,
                self.target._replace(apply=self.target.relaxed),
                self.generator,
            )
        if not cells.train_nodes:
            return self.space, self.target, self.generator
        config = replace(
            self.config, cells=replace(cells, nodes=cells.train_nodes)
        )
        shape = self.dataset.image, self.dataset.classes
        space, target = (
            SPACES[config.space](config, *shape),
            TARGETS[config.space](config, *shape),
        )
        *_, target = predict.choose(config.execution, target, self._platform)
        generator = GENERATORS[config.generator](config, space, target)
        if jax.eval_shape(generator.init, self.key) != jax.eval_shape(
            self.generator.init, self.key
        ):
            raise UserError(
                f"cells.train_nodes: {config.generator}'s parameters depend on the number of nodes: set it to 0"
            )
        return space, target, generator

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, of all processes: what training runs on.

        They split the architectures of a step as far as their number divides these, and then an architecture's images.
        """
        return make_mesh(images_shared(self.config, jax.device_count()))

    @cached_property
    def local_mesh(self) -> Mesh:
        """This process's devices: what its share of the candidates is scored on, with no collective."""
        return make_mesh(devices=jax.local_devices())

    @cached_property
    def replicated(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def local(self) -> NamedSharding:
        """The same on every device of this process."""
        return NamedSharding(self.local_mesh, PartitionSpec())

    @cached_property
    def images(self) -> Images:
        """The training split, the same on every device.

        Raises:
            UserError: it is streamed.
        """
        if self.config.data.stream:
            raise UserError(
                "data.stream: training from scratch needs all images on a device: set it to False"
            )
        split = self.dataset.train
        arrays = (
            split.x_NxHxWxC,
            split.y_N,
            self.dataset.mean_C,
            self.dataset.std_C,
        )
        return Images(*(jax.device_put(a, self.replicated) for a in arrays))

    @cached_property
    def streamed(self) -> jax.sharding.NamedSharding:
        """How streamed images T x B x ... lie on the devices.

        Raises:
            UserError: the images of a step don't divide among the processes.
        """
        sharding, drawn = by_process(self.mesh), self.config.train.drawn
        if drawn % (processes := sharding.mesh.shape[PROCESS]):
            raise UserError(
                f"train.batch: with data.stream the {drawn} images of a step must be a multiple of the {processes} "
                f"processes: set it to {-(-self.config.train.batch // processes) * processes}"
            )
        return sharding

    def training_images(
        self, state: TrainState
    ) -> abc.Generator[Images | Segment]:
        """What each call of the training program takes, from a state on; streamed ones end with training."""
        if not self.config.data.stream:
            while True:
                yield self.images
        config, dataset = self.config.train, self.dataset
        moments = [
            jax.device_put(a, self.replicated)
            for a in (dataset.mean_C, dataset.std_C)
        ]
        order_key, _ = keys(state.key.addressable_data(0))
        steps = range(int(state.step), config.steps)
        for x, y in loader.segments(
            dataset.source,
            order_key,
            config.drawn,
            steps,
            config.every,
            self.streamed,
        ):
            yield Segment(x, y, *moments)

    def _batches(self, split: data.Split) -> Batches:
        return make_batches(
            split,
            self.dataset.mean_C,
            self.dataset.std_C,
            self.config.score.batch,
        )

    @cached_property
    def valid(self) -> Batches:
        """The held-out images, in batches: what candidates are scored on."""
        return self._batches(self.dataset.valid)

    @cached_property
    def test(self) -> Batches:
        """The test images, in batches."""
        return self._batches(self.dataset.test)

    @property
    def key(self) -> jax.Array:
        """Where all randomness starts."""
        return jax.random.key(self.config.seed)

    def start(self, key: jax.Array) -> TrainState:
        """The state before training."""
        return init_state(
            self.generator, make_optimizer(self.config.train), key
        )

    @property
    def segment(self) -> int:
        """Steps of training in one call of its program, at most."""
        return min(self.config.train.every, self.config.train.steps)

    @cached_property
    def train_program(self) -> jax.stages.Wrapped:
        """`train.make_run` of this run.

        Raises:
            UserError: the images of a batch don't divide among the devices that share it.
        """
        config, shared = self.config.train, self.mesh.shape[DATA]
        if config.batch % shared:
            raise UserError(
                f"train.batch: {config.batch} must be a multiple of the {shared} devices that share it: set it to "
                f"{-(-config.batch // shared) * shared}, or train.architectures to a multiple of {self.mesh.size}"
            )
        per_device = config.architectures // self.mesh.shape[ARCH]
        chunk = max(
            c
            for c in range(1, min(self.chunk, per_device) + 1)
            if per_device % c == 0
        )

        def mean(f, replicated, population):
            phi, *batch = replicated
            return mean_over_mesh(
                self.mesh, lambda r, p: mean_candidates(partial(f, r), p, chunk)
            )((phi, *split_images(self.mesh, batch)), population)

        def sample(key, progress):
            keys = jax.random.split(key, config.architectures)
            if config.path_dropout and space.paths:
                return jax.vmap(
                    lambda k: space.paths(k, config.path_dropout * progress)
                )(keys)
            return jax.vmap(lambda k: space.sample(k, progress))(keys)

        space, target, generator = self.trained
        logits, optimizer = bind(target, generator), make_optimizer(config)
        return jax.jit(
            make_run(
                config,
                self.config.data,
                logits,
                generator.decay,
                optimizer,
                sample,
                mean,
                self.segment,
            )
        )

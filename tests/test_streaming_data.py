"""Streamed training images: the same results as with all images on the device.

Whatever the cuts, the processes and the sources are.
"""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny import GENERATOR_SIZES, TINY

from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.cli.main import main
from jaxhypernas.config import Config
from jaxhypernas.data import loader
from jaxhypernas.data.batches import Segment, batch_order
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import Dataset, load
from jaxhypernas.data.splits import Split
from jaxhypernas.execution import mesh
from jaxhypernas.families import FAMILIES
from jaxhypernas.hosts import interrupt
from jaxhypernas.programs import training
from jaxhypernas.programs.ahead.lowering import lowered
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.run import Run
from jaxhypernas.spaces.nasbench201 import nasbench201
from jaxhypernas.types import Family, Settings, Target, UserError

KEY = jax.random.key(3)


@dataclass(frozen=True)
class LinearConfig(Settings):
    """Of networks that compile at once."""


def linear(config, image, classes):
    """Whatever the architecture, its network is one linear layer."""
    space = nasbench201(Nasbench201Config(4, 1), image, classes)
    shape = (int(np.prod(image)), classes)
    spec = {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def apply(theta, arch, x):
        return x.reshape(len(x), -1) @ theta["kernel"]

    return space, Target(spec, apply, {"kernel": np.int32(0)})


@pytest.fixture(scope="module", autouse=True)
def linear_family():
    FAMILIES["linear"] = Family(LinearConfig, linear)
    yield
    del FAMILIES["linear"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with 120 of the digits as a set "small", and as a set "nameless"
    without names of classes."""
    import tensorflow_datasets as tfds

    images = load(DataConfig(), 0).train
    root = tmp_path_factory.mktemp("tfds")
    for name, label in (
        ("small", tfds.features.ClassLabel(num_classes=10)),
        ("nameless", np.int64),
    ):

        def info(builder, label=label):
            features = {
                "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                "label": label,
            }
            return tfds.core.DatasetInfo(
                builder=builder, features=tfds.features.FeaturesDict(features)
            )

        def examples(builder, number):
            return (
                (i, {"image": images.x_NxHxWxC[i], "label": images.y_N[i]})
                for i in range(number)
            )

        members = {
            "__module__": __name__,
            "VERSION": tfds.core.Version("1.0.0"),
            "_info": info,
            "_split_generators": lambda builder, _: {
                s: builder._generate_examples(120) for s in ("train", "test")
            },
            "_generate_examples": examples,
        }
        kind = type(
            name.capitalize(), (tfds.core.GeneratorBasedBuilder,), members
        )
        kind(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture(scope="module")
def source(prepared):
    """Configurations to stream from host memory, and from disk."""
    return {
        "memory": TINY.data,
        "disk": DataConfig("small", str(prepared), pad=1),
    }


def streaming(config: DataConfig, stream=True, **train) -> Config:
    return replace(
        TINY,
        space=LinearConfig(),
        generator=GENERATOR_SIZES["shared"],
        data=replace(config, stream=stream),
        train=replace(TINY.train, **train),
    )


def made(config: Config) -> tuple[Parts, Dataset]:
    dataset = load(config.data, config.seed)
    return build(config, dataset.image, dataset.classes), dataset


def trained(config: Config, resident=False) -> training.TrainState:
    """The state after training; resident: on the streamed images, but in memory."""
    parts, dataset = made(config)
    if resident:
        everything = np.arange(dataset.source.size)
        train = dataset.source.take(everything)
        dataset = dataset._replace(train=train, stored=None)
        data = replace(config.data, stream=False)
        config = replace(config, data=data)
        parts = build(config, dataset.image, dataset.classes)
    state = training.start_everywhere(parts)
    *_, last = training.train(parts, dataset, state)
    return last.state


def assert_same_state(a, b) -> None:
    def numbers(x):
        return np.asarray(
            jax.random.key_data(x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        )

    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(numbers(x), numbers(y)),
        a,
        b,
    )


@pytest.fixture(scope="module")
def resident(source):
    """The states after training with all images on the device."""
    return {
        place: trained(streaming(config), resident=True)
        for place, config in source.items()
    }


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_streamed_is_resident_bit_for_bit(place, source, resident):
    assert_same_state(trained(streaming(source[place])), resident[place])


def test_cut_and_resumed_is_bit_for_bit(
    source, resident, tmp_path, monkeypatch
):
    # The last segment has two steps, and training stops inside the first.
    config = streaming(source["disk"], every=3)
    with (
        monkeypatch.context() as patched,
        pytest.raises(interrupt.StoppedError),
    ):
        stop = Mock(return_value=signal.SIGTERM)
        patched.setattr(interrupt, "requested", stop)
        Run(tmp_path / "run", config).train()
    checkpoints = (tmp_path / "run" / "checkpoints").iterdir()
    assert [path.name for path in checkpoints] == ["1"]
    assert_same_state(Run(tmp_path / "run").train(), resident["disk"].phi)


def in_processes(number: int, order=slice(None)) -> NamedSharding:
    """As if the devices belonged to so many processes."""
    devices = np.array(jax.devices())[order].reshape(number, -1)
    return NamedSharding(
        Mesh(devices, (mesh.PROCESS, mesh.DATA)),
        PartitionSpec(None, mesh.PROCESS),
    )


def test_a_batch_split_over_processes_is_whole_in_training(
    source, resident, monkeypatch
):
    monkeypatch.setattr(training, "by_process", lambda mesh: in_processes(2))
    config = streaming(source["disk"])
    parts, dataset = made(config)
    state = training.start_everywhere(parts)
    images = next(training.segments(parts, dataset, state))
    assert isinstance(images, Segment)
    shards = images.x_TxBxHxWxC.addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 8, 8, 8, 1)}
    assert_same_state(trained(config), resident["disk"])


# --- what is read ----------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "batch", "first"),
    [(10, 3, 0), (7, 7, 5), (5, 12, 2), (45_000, 128, 50_000_000)],
)
def test_order_on_the_host(size, batch, first):
    expected = jax.jit(batch_order, static_argnums=(1, 2, 3))(
        KEY, size, batch, 12, first
    )
    order = loader.host_order(KEY, size, batch)
    for step, index_B in enumerate(expected, first):
        np.testing.assert_array_equal(order(step), index_B)


class Counted(Split):
    """Remembers what was taken."""

    def take(self, index_B):
        TAKEN.append(index_B)
        return super().take(index_B)


TAKEN: list[np.ndarray] = []


def numbered(number: int) -> Counted:
    return Counted(
        np.arange(number, dtype=np.uint8).reshape(-1, 1, 1, 1),
        np.arange(number, dtype=np.int32),
    )


def test_a_segment_has_the_images_of_its_steps_and_no_more():
    TAKEN.clear()
    steps, length, batch = range(3, 53), 4, 6
    segments = loader.segments(
        numbered(40), KEY, batch, steps, length, in_processes(1)
    )
    # It begins in the middle of a segment.
    x, y = next(segments)
    np.testing.assert_array_equal(y[:1], batch_order(KEY, 40, batch, 1, 3))
    np.testing.assert_array_equal(y[1:], 0)
    assert (
        x.shape == (length, batch, 1, 1, 1)
        and y.shape == (length, batch)
        and x.dtype == np.uint8
    )
    # This segment, and at most as much read ahead.
    assert len(TAKEN) <= 2 * length
    read = np.concatenate([y for _, y in segments])
    # Nothing is read twice.
    assert sum(map(len, TAKEN)) == len(steps) * batch
    np.testing.assert_array_equal(
        read[:49], batch_order(KEY, 40, batch, 49, 4)
    )
    np.testing.assert_array_equal(read[49:], 0)
    assert len(read) == 52


@pytest.mark.parametrize("order", [slice(None), [0, 2, 1, 3], [3, 1, 2, 0]])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_of_processes_make_the_whole(processes, order):
    """Process p has the devices that lie p-th among all, wherever the mesh has them."""
    sharding, batch = in_processes(processes, order), 8
    images, pick = numbered(40), loader.host_order(KEY, 40, batch)
    whole, rows = np.zeros((5, batch), np.int32), []
    for devices in np.array(jax.devices()).reshape(processes, -1):
        mine = loader._process_rows(sharding, batch, devices)
        share = list(loader._read(images, pick, mine, range(5), 2))
        assert all(split.size == len(mine) for split in share)
        whole[:, mine] = [split.y_N for split in share]
        rows += list(mine)
    np.testing.assert_array_equal(whole, batch_order(KEY, 40, batch, 5, 0))
    # Contiguous, in order, no image twice.
    assert order != slice(None) or rows == list(range(batch))


PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec

rank, address, directory = int(sys.argv[1]), *sys.argv[2:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, rank)
from jaxhypernas.data import loader
from jaxhypernas.data.splits import Split
from jaxhypernas.execution import mesh

split = Split(np.zeros((40, 1, 1, 1), np.uint8), np.arange(40, dtype=np.int32))
sharding = mesh.by_process(mesh.make_mesh())
((_, y),) = loader.segments(split, jax.random.key(3), 8, range(5), 5, sharding)
everywhere = NamedSharding(sharding.mesh, PartitionSpec())
whole = jax.jit(lambda y: y, out_shardings=everywhere)(y)
mine = [shard.data for shard in y.addressable_shards]
np.savez(f"{directory}/{rank}.npz", whole=whole, mine=mine)
"""


def test_two_processes_hold_half_each(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROCESS]
    both = [
        subprocess.Popen(
            [*command, str(rank), address, str(tmp_path)], env=environment
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    expected = np.asarray(batch_order(KEY, 40, 8, 5, 0))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as got:
            np.testing.assert_array_equal(got["whole"], expected)
            np.testing.assert_array_equal(
                got["mine"], [expected[:, 4 * rank : 4 * rank + 4]] * 2
            )


def images_of(*splits: Split) -> list[tuple[bytes, int]]:
    """Images with their labels, in an order of their own."""
    return sorted(
        (x.tobytes(), int(y))
        for split in splits
        for x, y in zip(split.x_NxHxWxC, split.y_N, strict=True)
    )


def test_disk_gives_what_memory_gives(source):
    disk, memory = (
        load(streaming(source["disk"], stream).data, 0)
        for stream in (True, False)
    )
    assert (
        disk.stored is not None
        and disk.train.size == disk.test.size == 0
        and memory.stored is None
    )
    train = disk.source.take(np.arange(96))
    # Sets on disk are not stratified, so others of the same images are held out.
    assert images_of(train, disk.valid) == images_of(
        memory.train, memory.valid
    )
    assert disk.valid.size == memory.valid.size
    np.testing.assert_allclose(
        [disk.mean_C, disk.std_C],
        [train.x_NxHxWxC.mean((0, 1, 2)), train.x_NxHxWxC.std((0, 1, 2))],
        rtol=1e-6,
    )
    assert (disk.image, disk.classes) == (memory.image, memory.classes)


# --- mistakes --------------------------------------------------------------


def line(action, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    "words",
    [
        ["search", "--data.stream"],
        ["train", "--data.stream", "--generator", "standalone"],
    ],
)
def test_commands_that_need_all_images(words, tmp_path, capsys):
    code = main([*words, "--workdir", str(tmp_path / "run")])
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert "\n" not in said and "data.stream" in said
    assert not (tmp_path / "run").exists()


def test_training_from_scratch_needs_all_images(source, tmp_path):
    config = streaming(source["memory"])
    run = Run(tmp_path / "run", config)
    line(run.retrain, "data.stream", "from scratch")
    standalone = replace(config, generator=GENERATOR_SIZES["standalone"])
    line(partial(made, standalone), "data.stream", "from scratch")


def test_unknown_classes(prepared):
    config = DataConfig("nameless", str(prepared), stream=True)
    line(
        partial(load, config, 0),
        "data.stream",
        "'nameless'",
        "number of classes",
    )


def test_a_batch_that_processes_cannot_share(source, monkeypatch):
    monkeypatch.setattr(training, "by_process", lambda mesh: in_processes(4))
    config = streaming(source["memory"], batch=18)
    line(
        partial(trained, config),
        "train.batch",
        "18 images",
        "4 processes",
        "set it to 20",
    )


def test_images_lost_while_training(source):
    parts, dataset = made(streaming(source["disk"]))
    assert dataset.stored is not None

    class Damaged:
        def __getitems__(self, rows):
            raise ValueError("record\nis gone")

    stored = dataset.stored._replace(source=Damaged())
    state = training.start_everywhere(parts)
    steps = training.train(parts, dataset._replace(stored=stored), state)
    line(
        partial(next, steps),
        "data.dataset",
        "'small'",
        "cannot be read",
        "record is gone",
    )


def test_programs_for_a_slice_take_segments(source):
    programs = list(lowered(streaming(source["disk"]), jax.devices()))
    assert [program.name for program in programs] == ["train", "score"]
    assert "2x16x8x8x1xui8" in programs[0].lowered.as_text()

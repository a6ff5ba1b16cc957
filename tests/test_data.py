"""Sources, checks and splits of image sets; the properties of batching, augmentation and normalisation."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhypernas.data import dataset as data
from jaxhypernas.data import sources
from jaxhypernas.data.dataset import DataConfig, load
from jaxhypernas.types import UserError

CIFAR = "data/tensorflow_datasets"  # in ../shared


def arrays(
    train=30, test=9, shape=(4, 5, 3), classes=3, dtype=np.uint8
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for part, number in (("train", train), ("test", test)):
        made[f"x_{part}"] = rng.integers(0, 256, (number, *shape)).astype(dtype)
        made[f"y_{part}"] = np.arange(number) % classes
    return made


def saved(path: Path, **changes) -> str:
    """The path of an .npz of `arrays`, with some replaced, or left out where None."""
    kept: dict = {
        k: v for k, v in (arrays() | changes).items() if v is not None
    }
    np.savez(path / "set.npz", **kept)
    return str(path / "set.npz")


def prepared(
    root: Path,
    features: dict,
    file_format: str = "array_record",
    splits=("train", "test"),
) -> None:
    """A tensorflow-datasets directory of a set "fake" with metadata and no images."""
    import tensorflow_datasets as tfds

    folder = root / "fake" / "1.0.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    parts = [
        {
            "name": s,
            "numBytes": "9",
            "shardLengths": ["2"],
            "filepathTemplate": template,
        }
        for s in splits
    ]
    info = {
        "name": "fake",
        "version": "1.0.0",
        "fileFormat": file_format,
        "splits": parts,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def fails(config: DataConfig, *words: str) -> None:
    """Loading raises a UserError of one line that holds every word, and nothing else."""
    with pytest.raises(UserError) as caught:
        load(config, 0)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert caught.value.__cause__ is None
    for word in words:
        assert word in message, message


# --- splits ----------------------------------------------------------------------------------------------------------


def test_digits():
    a = load(DataConfig(), 0)
    assert (a.name, a.classes, a.image) == ("digits", 10, (8, 8, 1))
    assert [len(s.y_N) for s in (a.train, a.valid, a.test)] == [1150, 287, 360]
    for split in (a.train, a.valid, a.test):
        assert split.x_NxHxWxC.dtype == np.uint8 and split.y_N.dtype == np.int32
        assert split.x_NxHxWxC.max() == 255
    counts = np.bincount(a.test.y_N)
    assert counts.min() >= 34 and counts.max() <= 37  # stratified


def test_seed_decides_the_held_out_images_only():
    a, again, b = (load(DataConfig(), seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a[2:], again[2:])
    jax.tree.map(np.testing.assert_array_equal, a.test, b.test)
    assert (a.valid.y_N != b.valid.y_N).any()


def numbered(path: Path, number=50) -> str:
    """An .npz whose images each show their own number."""
    x = np.broadcast_to(
        np.arange(number, dtype=np.uint8)[:, None, None], (number, 2, 2)
    )
    return saved(
        path,
        x_train=x,
        y_train=np.arange(number) % 3,
        x_test=x + 100,
        y_test=np.arange(number) % 3,
    )


def ids(split: data.Split) -> list[int]:
    return split.x_NxHxWxC[:, 0, 0, 0].tolist()


def test_splits_share_no_image_and_lose_none(tmp_path):
    a = load(DataConfig(numbered(tmp_path), valid=0.3), 0)
    assert len(a.valid.y_N) == 15
    assert sorted(ids(a.train) + ids(a.valid)) == list(range(50))
    assert ids(a.test) == list(range(100, 150))
    for split in (a.train, a.valid):
        np.testing.assert_array_equal(split.y_N, np.array(ids(split)) % 3)


def test_limit_takes_a_random_part_of_the_training_images(tmp_path):
    a, b = (
        load(DataConfig(numbered(tmp_path), limit=20), seed) for seed in (0, 1)
    )
    assert (len(a.train.y_N), len(a.valid.y_N), len(a.test.y_N)) == (16, 4, 50)
    assert len(set(ids(a.train) + ids(a.valid))) == 20
    assert set(ids(a.train)) != set(ids(b.train))
    assert (
        len(load(DataConfig(numbered(tmp_path), limit=1000), 0).train.y_N) == 40
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_are_of_the_training_split(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(data, "CHUNK", 7)
    a = load(DataConfig(saved(tmp_path, **arrays(dtype=dtype))), 0)
    x = a.train.x_NxHxWxC
    assert x.dtype == dtype and a.mean_C.dtype == a.std_C.dtype == np.float32
    np.testing.assert_allclose(
        a.mean_C, x.mean((0, 1, 2), dtype=np.float64), rtol=1e-6
    )
    np.testing.assert_allclose(
        a.std_C, x.std((0, 1, 2), dtype=np.float64), rtol=1e-6
    )


@pytest.mark.parametrize("value", [0, 37, 0.1, 1e6 / 3])
def test_constant_channel_becomes_zero(tmp_path, value):
    x = np.full((30, 4, 5, 3), value, np.float32)
    a = load(DataConfig(saved(tmp_path, x_train=x, x_test=x[:9])), 0)
    np.testing.assert_array_equal(a.std_C, 1)
    y = data.normalise(
        jnp.asarray(a.train.x_NxHxWxC),
        jnp.asarray(a.mean_C),
        jnp.asarray(a.std_C),
    )
    np.testing.assert_allclose(y, 0, atol=1e-6 * max(value, 1))


# --- .npz ------------------------------------------------------------------------------------------------------------


def test_npz_without_channels_and_other_dtypes(tmp_path):
    parts = arrays(shape=(4, 5), dtype=np.int16)
    a = load(
        DataConfig(
            saved(
                tmp_path,
                **parts | {"y_train": parts["y_train"].astype(np.uint64)},
            )
        ),
        0,
    )
    assert a.image == (4, 5, 1) and a.classes == 3
    assert (
        a.train.x_NxHxWxC.dtype == np.float32 and a.train.y_N.dtype == np.int32
    )


def test_npz_under_another_name(tmp_path):
    file = Path(saved(tmp_path)).rename(tmp_path / "images")
    assert load(DataConfig(str(file)), 0).classes == 3


ZEROS = np.zeros((30, 4, 5, 3), np.float32)
BAD_ARRAYS = {
    "missing key": ({"y_test": None}, "lacks y_test", "save"),
    "missing keys": (
        {"x_train": None, "y_test": None},
        "lacks x_train, y_test",
    ),
    "object images": (
        {"x_train": np.array([[1], "a"], dtype=object)},
        "more than numbers",
        "np.savez",
    ),
    "object labels": ({"y_train": np.array([None] * 30)}, "more than numbers"),
    "rank 2": (
        {"x_train": np.zeros((30, 60), np.uint8)},
        "x_train has shape (30, 60)",
        "NxHxWxC",
    ),
    "rank 5": (
        {"x_test": np.zeros((9, 4, 5, 3, 1), np.uint8)},
        "x_test has shape",
        "NxHxWxC",
    ),
    "rank 0": ({"x_test": np.uint8(1)}, "x_test has shape ()"),
    "one label too few": (
        {"y_train": np.arange(29) % 3},
        "x_train has 30 images, y_train 29",
    ),
    "test labels too many": (
        {"y_test": np.arange(10) % 3},
        "x_test has 9 images, y_test 10",
    ),
    "other size in test": (
        {"x_test": np.zeros((9, 5, 5, 3), np.uint8)},
        "(4, 5, 3)",
        "(5, 5, 3)",
    ),
    "other channels in test": (
        {"x_test": np.zeros((9, 4, 5), np.uint8)},
        "(4, 5, 3)",
        "(4, 5, 1)",
    ),
    "other dtype in test": (
        {"x_test": np.zeros((9, 4, 5, 3), np.float32)},
        "uint8",
        "float32",
    ),
    "float labels": (
        {"y_train": np.arange(30) % 3.0},
        "y_train is float64",
        "integer",
    ),
    "string labels": (
        {"y_test": np.array(["a"] * 9)},
        "y_test is <U1",
        "integer",
    ),
    "bool labels": (
        {"y_train": np.arange(30) % 2 == 0},
        "y_train is bool",
        "integer",
    ),
    "one-hot labels": (
        {"y_train": np.eye(3, dtype=int)[np.arange(30) % 3]},
        "y_train",
        "(30, 3)",
    ),
    "negative label": (
        {"y_train": np.arange(30) % 3 - 1},
        "y_train has labels from -1",
    ),
    "huge label": (
        {"y_train": np.arange(30) + 2**40},
        "y_train has labels",
        "from 0",
    ),
    "gap in labels": (
        {"y_train": np.arange(30) % 3 * 2},
        "goes up to 4",
        "3 labels",
    ),
    "labels from 1": (
        {"y_train": np.arange(30) % 3 + 1},
        "number the classes from 0",
    ),
    "one class": (
        {"y_train": np.zeros(30, int), "y_test": np.zeros(9, int)},
        "one class",
    ),
    "unknown test label": (
        {"y_test": np.arange(9) % 4},
        "y_test has label 3",
        "up to 2",
    ),
    "no training image": (arrays(train=0), "x_train", "at least one"),
    "no test image": (arrays(test=0), "x_test", "at least one"),
    "no pixel": (arrays(shape=(4, 0, 3)), "x_train", "pixels"),
    "nan": (
        {"x_train": ZEROS + np.nan, "x_test": ZEROS[:9]},
        "x_train has NaN",
    ),
    "beyond float32": (
        {"x_train": np.full((30, 4, 5, 3), 1e300)},
        "x_train has NaN or infinite",
    ),
    "inf in test": (
        {"x_train": ZEROS, "x_test": ZEROS[:9] + np.inf},
        "x_test has NaN or infinite",
    ),
    "string images": (
        {"x_train": np.full((30, 4, 5, 3), "a")},
        "x_train is <U1",
        "uint8",
    ),
    "complex images": (
        {"x_train": np.zeros((30, 4, 5, 3), np.complex64)},
        "x_train is complex64",
    ),
    "bool images": (
        {"x_train": np.zeros((30, 4, 5, 3), bool)},
        "x_train is bool",
    ),
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [(c, w) for c, *w in BAD_ARRAYS.values()],
    ids=BAD_ARRAYS,
)
def test_bad_npz(tmp_path, changes, words):
    file = saved(tmp_path, **changes)
    fails(DataConfig(file), "data.dataset", file, *words)


def test_no_npz(tmp_path):
    fails(
        DataConfig(str(tmp_path / "none.npz")),
        "data.dataset",
        "none.npz does not exist",
    )
    fails(DataConfig(str(tmp_path)), "data.dataset")
    text, npy = tmp_path / "a.npz", tmp_path / "b.npy"
    text.write_text("hello")
    np.save(npy, np.zeros(3))
    fails(DataConfig(str(text)), "a.npz is damaged or no .npz", "np.savez")
    fails(DataConfig(str(npy)), "b.npy is damaged or no .npz")


def test_damaged_npz(tmp_path):
    good = Path(saved(tmp_path)).read_bytes()
    file = tmp_path / "bad.npz"
    file.write_bytes(good[: len(good) // 2])
    fails(DataConfig(str(file)), "bad.npz is damaged")
    rng = np.random.default_rng(0)
    caught = 0
    for _ in range(40):  # a flipped byte either does no harm or gives a line
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 0xFF
        file.write_bytes(bad)
        try:
            load(DataConfig(str(file)), 0)
        except UserError as error:
            caught += "\n" not in str(error) and "bad.npz" in str(error)
    assert caught > 20


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"valid": 0.0}, ["data.valid", "between 0 and 1"]),
        ({"valid": 1.0}, ["data.valid", "between 0 and 1"]),
        ({"valid": float("nan")}, ["data.valid", "between 0 and 1"]),
        ({"valid": 1e-6}, ["data.valid", "no held-out image"]),
        ({"valid": 1 - 1e-6}, ["data.valid", "no training image"]),
        ({"limit": 9}, ["data.limit", "9 images", "10 classes"]),
        ({"limit": 0}, ["data.limit"]),
        ({"limit": -5}, ["data.limit"]),
        ({"pad": -1}, ["data.pad", "-1"]),
    ],
)
def test_bad_field(fields, words):
    with pytest.raises(UserError) as caught:
        load(DataConfig(**fields), 0)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_bad_seed():
    with pytest.raises(UserError, match=r"^seed: -1"):
        load(DataConfig(), -1)


# --- tensorflow-datasets ---------------------------------------------------------------------------------------------


def test_cifar10(shared):
    start = time.perf_counter()
    a = load(DataConfig("cifar10", str(shared / CIFAR), valid=0.1), 0)
    print(f"cifar10 loaded in {time.perf_counter() - start:.1f} s")
    assert (a.classes, a.image) == (10, (32, 32, 3))
    assert [len(s.y_N) for s in (a.train, a.valid, a.test)] == [
        45_000,
        5_000,
        10_000,
    ]
    assert a.train.x_NxHxWxC.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(a.test.y_N), 1000)
    np.testing.assert_allclose(
        a.mean_C, [125.3, 123.0, 113.9], atol=2
    )  # as published
    np.testing.assert_allclose(a.std_C, [63.0, 62.1, 66.7], atol=2)
    assert "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A data_dir with a set "written" that tensorflow-datasets itself wrote, its keys unusually named."""
    import tensorflow_datasets as tfds

    class Written(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            picture = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)
            features = {
                "picture": picture,
                "kind": tfds.features.ClassLabel(num_classes=2),
                "id": np.int64,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(20),
                "test": self._generate_examples(6),
            }

        def _generate_examples(self, number):
            for i in range(number):
                yield (
                    i,
                    {
                        "picture": np.full((4, 4, 1), 10 * i, np.uint8),
                        "kind": i % 2,
                        "id": i,
                    },
                )

    root = tmp_path_factory.mktemp("tfds")
    builder = Written(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return root


def test_written_set_with_other_keys(written, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK", 8)
    a = load(DataConfig("written", str(written)), 0)
    assert (a.classes, a.image, len(a.train.y_N), len(a.test.y_N)) == (
        2,
        (4, 4, 1),
        16,
        6,
    )
    assert sorted(ids(a.train) + ids(a.valid)) == list(range(0, 200, 10))
    np.testing.assert_array_equal(np.array(ids(a.train)) // 10 % 2, a.train.y_N)


def test_default_directory(written, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(written))
    assert load(DataConfig("written:1.0.0"), 0).classes == 2


@pytest.mark.parametrize(
    "name",
    [
        "mnist",
        "nonesuch",
        "no such/set:x",
        "",
        "hub:some",
        "../written",
        "written:9.9.9",
    ],
)
def test_unknown_set(written, name):
    start = time.perf_counter()
    before = sorted(written.rglob("*"))
    fails(
        DataConfig(name, str(written)), "data.dataset", repr(name), str(written)
    )
    assert sorted(written.rglob("*")) == before
    assert time.perf_counter() - start < 10  # no attempt to download


def test_unknown_set_names_those_there(written):
    fails(
        DataConfig("mnist", str(written)), "(there is written)", "data.data_dir"
    )
    fails(DataConfig("written:2.0.0", str(written)), "written holds 1.0.0")


def test_no_data_dir(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    fails(
        DataConfig("mnist", str(tmp_path / "none")),
        "data.data_dir",
        "none is no directory",
    )
    fails(
        DataConfig("mnist", str(tmp_path)), "data.dataset", "nothing is there"
    )
    fails(DataConfig("mnist", "nonesuch://bucket"), "data.data_dir", "nonesuch")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "none"))
    fails(
        DataConfig("mnist"), "data.dataset", "nothing is there", "data.data_dir"
    )


def test_damaged_set(written, tmp_path):
    import shutil

    for number, (file, content) in enumerate(
        [
            ("dataset_info.json", "{"),
            ("features.json", "{"),
            (
                "written-train.array_record-00000-of-00001",
                "nothing of the kind",
            ),
            ("written-test.array_record-00000-of-00001", None),
        ]
    ):
        root = shutil.copytree(written, tmp_path / str(number))
        path = root / "written" / "1.0.0" / file
        path.unlink() if content is None else path.write_text(content)
        fails(
            DataConfig("written", str(root)),
            "data.dataset",
            "'written'",
            "cannot be read",
            "prepare it again",
        )


def test_tfrecord(tmp_path):
    from tensorflow_datasets import features as f

    prepared(
        tmp_path,
        {
            "image": f.Image(shape=(8, 8, 1)),
            "label": f.ClassLabel(num_classes=3),
        },
        "tfrecord",
    )
    fails(
        DataConfig("fake", str(tmp_path)),
        "data.dataset",
        "TFRECORD",
        'file_format="array_record"',
    )


def test_cifar10_in_tfrecord(shared, tmp_path):
    """The directory as tensorflow-datasets leaves it by default: the format is named, whatever its files hold."""
    source, folder = (
        shared / CIFAR / "cifar10" / "3.0.2",
        tmp_path / "cifar10" / "3.0.2",
    )
    folder.mkdir(parents=True)
    for name in ("features.json", "label.labels.txt"):
        (folder / name).write_bytes((source / name).read_bytes())
    info = json.loads((source / "dataset_info.json").read_text()) | {
        "fileFormat": "tfrecord"
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for split in ("train", "test"):
        (folder / f"cifar10-{split}.tfrecord-00000-of-00001").touch()
    fails(
        DataConfig("cifar10", str(tmp_path)),
        "data.dataset",
        "'cifar10'",
        "TFRECORD",
        'file_format="array_record"',
    )
    assert "tensorflow" not in sys.modules


NOT_ONE = "not one image and one label"
BAD_FEATURES = {  # of tfds.features, an image and a label
    "no label": (
        lambda f, image, label: {"image": image},
        "has image,",
        NOT_ONE,
    ),
    "no image": (
        lambda f, image, label: {"text": f.Text(), "label": label},
        "label, text",
        NOT_ONE,
    ),
    "two labels": (
        lambda f, image, label: {
            "image": image,
            "fine": label,
            "coarse": label,
        },
        "coarse, fine, image",
    ),
    "two images": (
        lambda f, image, label: {"left": image, "right": image, "label": label},
        "label, left, right",
    ),
    "text label": (
        lambda f, image, label: {"image": image, "label": f.Text()},
        NOT_ONE,
    ),
    "many labels": (
        lambda f, image, label: {"image": image, "label": f.Sequence(label)},
        NOT_ONE,
    ),
    "many images": (
        lambda f, image, label: {"image": f.Sequence(image), "label": label},
        NOT_ONE,
    ),
    "sizes vary": (
        lambda f, image, label: {
            "image": f.Image(shape=(None, None, 3)),
            "label": label,
        },
        "vary in size",
    ),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_no_image_classification(tmp_path, case):
    from tensorflow_datasets import features as f

    features, *words = BAD_FEATURES[case]
    prepared(
        tmp_path,
        features(f, f.Image(shape=(8, 8, 3)), f.ClassLabel(num_classes=3)),
    )
    fails(
        DataConfig("fake", str(tmp_path)),
        "data.dataset",
        "'fake'",
        ".npz",
        *words,
    )


def test_missing_split(tmp_path):
    prepared(tmp_path, {}, splits=("train", "validation"))
    fails(
        DataConfig("fake", str(tmp_path)),
        "no images in 'test'",
        "train, validation",
    )


def test_tensorflow_is_never_imported(written):
    code = f"""
import sys
from jaxhypernas.data import DataConfig, load
load(DataConfig("digits"), 0)
assert "tensorflow_datasets" not in sys.modules
load(DataConfig("written", {str(written)!r}), 0)
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=100,
        cwd=Path(__file__).parents[1],
    )


# --- on the device ---------------------------------------------------------------------------------------------------

KEY = jax.random.key(3)
order = jax.jit(data.batch_order, static_argnums=(1, 2, 3))


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (7, 7), (5, 12)])
def test_stream_is_the_same_however_it_is_cut(size, batch):
    whole = np.asarray(order(KEY, size, batch, 24, 0))
    assert whole.shape == (24, batch) and whole.dtype == np.int32
    for lengths in ((1,) * 24, (5, 19)):
        starts = np.cumsum((0, *lengths[:-1]))
        parts = [
            order(KEY, size, batch, n, jnp.int32(s))
            for n, s in zip(lengths, starts, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (5, 12)])
def test_every_epoch_has_every_image_once(size, batch):
    stream = np.asarray(order(KEY, size, batch, 60, 0)).ravel()
    epochs = stream[: len(stream) // size * size].reshape(-1, size)
    np.testing.assert_array_equal(
        np.sort(epochs), np.broadcast_to(np.arange(size), epochs.shape)
    )
    assert len(np.unique(epochs, axis=0)) > 1
    for number, epoch in enumerate(epochs):  # keyed by its number alone
        np.testing.assert_array_equal(
            epoch, jax.random.permutation(jax.random.fold_in(KEY, number), size)
        )


def test_stream_depends_on_its_key():
    assert (
        order(KEY, 50, 5, 10, 0) != order(jax.random.key(4), 50, 5, 10, 0)
    ).any()


def test_stream_far_along():
    size, batch, start = 45_000, 128, 50_000_000  # image 6.4e9, beyond int32
    epoch, offset = divmod(start * batch, size)
    expected = jax.random.permutation(jax.random.fold_in(KEY, epoch), size)[
        offset : offset + batch
    ]
    for first in (start, jnp.int32(start)):
        np.testing.assert_array_equal(
            order(KEY, size, batch, 2, first)[0], expected
        )


def test_stream_with_a_key_that_vmap_changes():
    key = jax.random.key(0, impl="rbg")
    whole = np.asarray(order(key, 10, 3, 24, 0))
    np.testing.assert_array_equal(
        order(key, 10, 3, 4, jnp.int32(9)), whole[9:13]
    )


def test_stream_too_long_for_int32():
    with pytest.raises(UserError, match=r"^train\.batch: "):
        data.batch_order(KEY, 2**20, 2**11, 1, 0)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_normalise(dtype):
    x = jax.random.randint(KEY, (64, 4, 4, 3), 0, 256).astype(dtype)
    mean, std = (
        jnp.asarray(x, jnp.float32).mean((0, 1, 2)),
        jnp.asarray(x, jnp.float32).std((0, 1, 2)),
    )
    y = jax.jit(data.normalise)(x, mean, std)
    assert y.dtype == jnp.float32 and y.shape == x.shape
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-5)


def windows(x_HxWxC, pad, flip):
    """All images that augmentation may make of one."""
    H, W = x_HxWxC.shape[:2]
    padded = np.pad(x_HxWxC, ((pad, pad), (pad, pad), (0, 0)))
    crops = [
        padded[i : i + H, j : j + W]
        for i in range(2 * pad + 1)
        for j in range(2 * pad + 1)
    ]
    return crops + [crop[:, ::-1] for crop in crops if flip]


@pytest.mark.parametrize(
    ("pad", "flip"), [(0, False), (1, False), (0, True), (1, True), (2, True)]
)
def test_augment_makes_each_possible_image(pad, flip):
    x = 1 + np.arange(4 * 5 * 2, dtype=np.float32).reshape(4, 5, 2)
    batch = jnp.broadcast_to(x, (600, 4, 5, 2))
    y = np.asarray(
        jax.jit(partial(data.augment, pad=pad, flip=flip))(KEY, batch)
    )
    assert y.dtype == np.float32
    possible = {w.tobytes() for w in windows(x, pad, flip)}
    assert {row.tobytes() for row in y} == possible
    assert len(possible) == (2 * pad + 1) ** 2 * (1 + flip)


def test_augment_moves_images_independently_and_by_key():
    x = jax.random.normal(KEY, (64, 4, 4, 1))
    a, b = (
        data.augment(KEY, x, 2, True),
        data.augment(jax.random.key(4), x, 2, True),
    )
    assert (a != b).any()
    np.testing.assert_array_equal(a, data.augment(KEY, x, 2, True))


def test_augment_under_vmap_is_a_loop():
    keys, x = jax.random.split(KEY, 3), jax.random.normal(KEY, (3, 8, 4, 4, 1))
    f = partial(data.augment, pad=1, flip=True)
    np.testing.assert_array_equal(
        jax.vmap(f)(keys, x),
        jnp.stack([f(k, v) for k, v in zip(keys, x, strict=True)]),
    )

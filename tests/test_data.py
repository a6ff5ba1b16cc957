"""Image sets: sources, checks and splits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhypernas.data import dataset as datasets
from jaxhypernas.data import splits
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import load
from jaxhypernas.data.splits import Split
from jaxhypernas.types import UserError

# In ../shared.
CIFAR = "data/tensorflow_datasets"


def arrays(
    train=30, test=9, shape=(4, 5, 3), classes=3, dtype=np.uint8
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for part, number in (("train", train), ("test", test)):
        made[f"x_{part}"] = rng.integers(0, 256, (number, *shape)).astype(
            dtype
        )
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
    """Loading raises a UserError of one line, alone, that holds every word."""
    with pytest.raises(UserError) as caught:
        load(config, 0)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert caught.value.__cause__ is None
    for word in words:
        assert word in message, message


# --- splits --------------------------------------------------------------------


def test_digits():
    a = load(DataConfig(), 0)
    assert (a.name, a.classes, a.image) == ("digits", 10, (8, 8, 1))
    assert [len(s.y_N) for s in (a.train, a.valid, a.test)] == [1150, 287, 360]
    for split in (a.train, a.valid, a.test):
        assert (
            split.x_NxHxWxC.dtype == np.uint8 and split.y_N.dtype == np.int32
        )
        assert split.x_NxHxWxC.max() == 255
    counts = np.bincount(a.test.y_N)
    # Stratified.
    assert counts.min() >= 34 and counts.max() <= 37


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


def ids(split: Split) -> list[int]:
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
        len(load(DataConfig(numbered(tmp_path), limit=1000), 0).train.y_N)
        == 40
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_are_of_the_training_split(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(datasets, "IMAGES_PER_SUM", 7)
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
    np.testing.assert_allclose(
        a.train.x_NxHxWxC - a.mean_C, 0, atol=1e-6 * max(value, 1)
    )


# --- .npz ----------------------------------------------------------------------


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
    "two labels": (
        {"y_train": np.ones((30, 3), int)},
        "y_train",
        "(30, 3)",
    ),
    "channels first": (
        {
            "x_train": np.zeros((30, 3, 5, 5), np.uint8),
            "x_test": np.zeros((9, 3, 5, 5), np.uint8),
        },
        "x_train has shape (30, 3, 5, 5), with channels first",
        "transpose(0, 2, 3, 1)",
    ),
    "other range in test": (
        {"x_train": ZEROS + 1, "x_test": ZEROS[:9] + 255},
        "x_train go up to 1",
        "x_test to 255",
    ),
    "half a part": ({"x_val": ZEROS[:3]}, "lacks y_valid"),
    "a part twice": (
        {"x_val": ZEROS[:3], "x_valid": ZEROS[:3]},
        "both x_val and x_valid",
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
    # A flipped byte either does no harm or gives a line.
    for _ in range(40):
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
        ({"valid": 1e-6}, ["data.valid", "no held-out image"]),
        ({"valid": 1 - 1e-6}, ["data.valid", "no training image"]),
        ({"limit": 9}, ["data.limit", "9 images", "10 classes"]),
    ],
)
def test_field_that_does_not_fit_the_set(fields, words):
    fails(DataConfig(**fields), *words)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("valid", 0.0, "between 0 and 1"),
        ("valid", 1.0, "between 0 and 1"),
        ("valid", float("nan"), "between 0 and 1"),
        ("limit", 0, "number of images"),
        ("limit", -5, "number of images"),
        ("pad", -1, "-1"),
    ],
)
def test_field_out_of_range(field, value, words):
    config = DataConfig(**{field: value})
    with pytest.raises(UserError, match=f"^{field}: .*{words}") as caught:
        config.check()
    assert "\n" not in str(caught.value)


def test_bad_seed():
    with pytest.raises(UserError, match=r"^seed: -1"):
        load(DataConfig(), -1)


# --- tensorflow-datasets -------------------------------------------------------


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
    # As published.
    np.testing.assert_allclose(a.mean_C, [125.3, 123.0, 113.9], atol=2)
    np.testing.assert_allclose(a.std_C, [63.0, 62.1, 66.7], atol=2)
    assert "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A data_dir with a set "written", of tensorflow-datasets, with unusual keys."""
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
    monkeypatch.setattr(splits, "ROWS_PER_READ", 8)
    a = load(DataConfig("written", str(written)), 0)
    assert (a.classes, a.image, len(a.train.y_N), len(a.test.y_N)) == (
        2,
        (4, 4, 1),
        16,
        6,
    )
    assert sorted(ids(a.train) + ids(a.valid)) == list(range(0, 200, 10))
    np.testing.assert_array_equal(
        np.array(ids(a.train)) // 10 % 2, a.train.y_N
    )


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
        DataConfig(name, str(written)),
        "data.dataset",
        repr(name),
        str(written),
    )
    assert sorted(written.rglob("*")) == before
    # No attempt to download.
    assert time.perf_counter() - start < 10


def test_unknown_set_names_those_there(written):
    fails(
        DataConfig("mnist", str(written)),
        "(there is written)",
        "data.data_dir",
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
    fails(
        DataConfig("mnist", "nonesuch://bucket"), "data.data_dir", "nonesuch"
    )
    monkeypatch.setattr(
        tfds.core.constants, "DATA_DIR", str(tmp_path / "none")
    )
    fails(
        DataConfig("mnist"),
        "data.dataset",
        "nothing is there",
        "data.data_dir",
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
    """As tensorflow-datasets prepares it by default: the message names the format."""
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
# Functions of tfds.features, an image and a label.
BAD_FEATURES = {
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
        lambda f, image, label: {
            "left": image,
            "right": image,
            "label": label,
        },
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
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import load
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

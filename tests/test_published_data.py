"""Images as people publish them: arrays, pictures in folders, Hugging Face's sets."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jaxhypernas.data import labels, memory, npz, summary
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import from_arrays, load
from jaxhypernas.data.splits import Split, stratified
from jaxhypernas.types import UserError

CLASSES = ("ant", "bee", "cat")


def pixels(number, shape=(4, 5, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, *shape)).astype(np.uint8)


def numbers(number):
    return np.arange(number) % 3


def refused(place, *words, **fields):
    with pytest.raises(UserError) as told:
        load(DataConfig(str(place), **fields), 0)
    line = str(told.value)
    assert "\n" not in line and len(line) < 500
    for word in ("data.dataset", *words):
        assert word in line, line


# --- labels ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        numbers(9)[:, None],
        np.eye(3)[numbers(9)],
        np.eye(3, dtype=bool)[numbers(9)],
        numbers(9),
    ],
    ids=["N x 1", "one-hot", "one-hot bool", "plain"],
)
def test_labels(y):
    np.testing.assert_array_equal(labels.to_integers(y), numbers(9))


def test_labels_of_true_and_false():
    found = labels.to_integers(np.array([[True], [False]]))
    np.testing.assert_array_equal(found, [1, 0])


@pytest.mark.parametrize(
    "y", [np.ones((4, 3)), np.zeros((4, 3)), np.full((4, 2), 0.5)]
)
def test_what_is_not_one_hot_stays(y):
    assert labels.to_integers(y) is y


# --- arrays in files --------------------------------------------------------------

NAMES = {
    "Keras": "x_{} y_{} train val test",
    "MedMNIST": "{}_images {}_labels train val test",
    "capitals": "X_{} Y_{} train valid test",
    "words": "images_{} targets_{} training validation testing",
}


@pytest.mark.parametrize("form", NAMES)
def test_names_of_arrays(tmp_path, form):
    images, targets, *parts = NAMES[form].split()
    arrays: dict = {}
    for part, number in zip(parts, (30, 12, 9), strict=True):
        arrays[images.format(part)] = pixels(number, seed=number)
        arrays[targets.format(part)] = numbers(number)[:, None]
    np.savez(tmp_path / "a.npz", **arrays)
    found = load(DataConfig(str(tmp_path / "a.npz")), 0)
    # The set's own validation images are used as such.
    sizes = [found.train.size, found.valid.size, found.test.size]
    assert sizes == [30, 12, 9]
    np.testing.assert_array_equal(found.valid.x_NxHxWxC, pixels(12, seed=12))
    np.testing.assert_array_equal(found.train.x_NxHxWxC, pixels(30, seed=30))


def test_a_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    zeros = np.zeros((1000, 32, 32, 3), np.uint8)
    np.savez_compressed(
        path,
        x_train=zeros,
        y_train=numbers(1000),
        x_test=zeros[:9],
        y_test=numbers(9),
    )
    monkeypatch.setattr(memory, "SHARE", 1e-9)

    def never(*args, **kwargs):
        raise AssertionError("the arrays were read")

    monkeypatch.setattr(npz.np, "load", never)
    refused(path, "GB in memory")


# --- pictures in folders --------------------------------------------------------------


def picture(path, x_HxWxC, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x_HxWxC).convert(mode).save(path, **options)


def folder(root, number=10, mode="RGB", shape=(4, 5, 3)):
    x_NxHxWxC = pixels(3 * number, shape)
    for n, x_HxWxC in enumerate(x_NxHxWxC):
        picture(root / CLASSES[n % 3] / f"{n:03}.png", x_HxWxC, mode)
    return x_NxHxWxC


def test_a_folder_per_class(tmp_path):
    x_NxHxWxC = folder(tmp_path)
    found = load(DataConfig(str(tmp_path)), 0)
    assert found.class_names == CLASSES and found.classes == 3
    assert found.image == (4, 5, 3)
    sizes = [found.train.size, found.valid.size, found.test.size]
    assert sizes == [19, 5, 6]
    assert np.bincount(found.test.y_N).tolist() == [2, 2, 2]
    for split in (found.train, found.valid, found.test):
        for x_HxWxC, y in zip(*split, strict=True):
            (n,) = np.flatnonzero((x_NxHxWxC == x_HxWxC).all((1, 2, 3)))
            assert n % 3 == y


def test_folders_of_parts(tmp_path):
    for part, number in (("train", 8), ("val", 3), ("Test", 2)):
        folder(tmp_path / part, number)
    found = load(DataConfig(str(tmp_path)), 0)
    sizes = [found.train.size, found.valid.size, found.test.size]
    assert sizes == [24, 9, 6]


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("L", "L"), 1),
        (("L", "RGB"), 3),
        (("P", "RGB"), 3),
        (("RGBA", "RGB"), 3),
    ],
)
def test_modes(tmp_path, modes, channels):
    for n, x_HxWxC in enumerate(pixels(12)):
        picture(tmp_path / CLASSES[n % 2] / f"{n}.png", x_HxWxC, modes[n % 2])
    assert load(DataConfig(str(tmp_path)), 0).image == (4, 5, channels)


def test_other_files_do_not_matter(tmp_path):
    folder(tmp_path)
    (tmp_path / "README.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"x")
    x_HxWxC = pixels(1, seed=9)[0]
    picture(tmp_path / "ant" / "x.JPG", x_HxWxC, quality=95)
    found = load(DataConfig(str(tmp_path)), 0)
    assert found.train.size + found.valid.size + found.test.size == 31


def test_folders_that_cannot_be_used(tmp_path):
    refused(tmp_path, "not understood", "state.json", ".png")
    folder(tmp_path / "sizes")
    picture(tmp_path / "sizes" / "cat" / "z.png", pixels(1, (9, 9, 3))[0])
    refused(tmp_path / "sizes", "ant/000.png is 4x5", "cat/z.png 9x9")
    folder(tmp_path / "bad")
    (tmp_path / "bad" / "bee" / "z.png").write_bytes(b"not a picture")
    refused(tmp_path / "bad", "bee/z.png cannot be read")
    folder(tmp_path / "deep")
    deep = Image.fromarray(np.zeros((4, 5), np.uint16))
    deep.save(tmp_path / "deep" / "cat" / "z.png")
    refused(tmp_path / "deep", "cat/z.png", "8 bits")
    folder(tmp_path / "more" / "train")
    picture(tmp_path / "more" / "test" / "dog" / "z.png", pixels(1)[0])
    refused(tmp_path / "more", "class dog is in test but not in train")


def test_a_huge_picture_is_not_decoded(tmp_path):
    folder(tmp_path)
    # A PNG of 60,000 x 60,000 white pixels of one bit.
    Image.MAX_IMAGE_PIXELS, most = None, Image.MAX_IMAGE_PIXELS
    huge = Image.new("1", (20_000, 20_000))
    huge.save(tmp_path / "cat" / "z.png")
    Image.MAX_IMAGE_PIXELS = most
    refused(tmp_path, "cat/z.png")


def test_a_prepared_set_is_named_as_such(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "features.json").write_text("{}")
    refused(tmp_path / "cifar10", "--data-dir")


# --- Hugging Face --------------------------------------------------------------


def save_split(root, number, seed=0):
    """What ``Dataset.save_to_disk`` writes."""
    root.mkdir(parents=True)
    rows = []
    for x_HxWxC in pixels(number, seed=seed):
        file = io.BytesIO()
        Image.fromarray(x_HxWxC).save(file, "png")
        rows.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"img": rows, "label": numbers(number)})
    half = number // 2
    for name, part in (("0", table[:half]), ("1", table[half:])):
        with pa.ipc.new_stream(
            root / f"data-{name}.arrow", table.schema
        ) as file:
            file.write_table(part)
    files = [{"filename": f"data-{name}.arrow"} for name in "01"]
    (root / "state.json").write_text(json.dumps({"_data_files": files}))
    label = {"_type": "ClassLabel", "names": list(CLASSES)}
    features = {"img": {"_type": "Image"}, "label": label}
    (root / "dataset_info.json").write_text(json.dumps({"features": features}))


def test_a_saved_set(tmp_path):
    save_split(tmp_path / "train", 30)
    save_split(tmp_path / "validation", 6, seed=1)
    save_split(tmp_path / "test", 9, seed=2)
    parts = {"splits": ["train", "validation", "test"]}
    (tmp_path / "dataset_dict.json").write_text(json.dumps(parts))
    found = load(DataConfig(str(tmp_path)), 0)
    assert found.class_names == CLASSES
    np.testing.assert_array_equal(found.train.x_NxHxWxC, pixels(30))
    np.testing.assert_array_equal(found.train.y_N, numbers(30))
    np.testing.assert_array_equal(found.valid.x_NxHxWxC, pixels(6, seed=1))
    np.testing.assert_array_equal(found.test.x_NxHxWxC, pixels(9, seed=2))


def test_a_saved_split_alone(tmp_path):
    save_split(tmp_path / "set", 30)
    found = load(DataConfig(str(tmp_path / "set")), 0)
    assert [found.train.size, found.valid.size, found.test.size] == [19, 5, 6]


def test_saved_sets_that_cannot_be_used(tmp_path):
    save_split(tmp_path / "set", 30)
    (tmp_path / "set" / "data-0.arrow").write_bytes(b"damaged")
    refused(tmp_path / "set", "cannot be read")
    (tmp_path / "set" / "state.json").write_text("{")
    refused(tmp_path / "set", "cannot be read")
    info = {"features": {"text": {"_type": "Value"}}}
    (tmp_path / "set" / "dataset_info.json").write_text(json.dumps(info))
    refused(tmp_path / "set", "its columns are text")


# --- arrays from Python ------------------------------------------------------------


def test_arrays_from_python():
    train = (pixels(30), numbers(30))
    found = from_arrays(train, (pixels(9), numbers(9)), class_names=CLASSES)
    assert [found.train.size, found.valid.size, found.test.size] == [24, 6, 9]
    assert found.classes == 3 and found.class_names == CLASSES
    found = from_arrays(train, valid=(pixels(6), numbers(6)))
    assert [found.train.size, found.valid.size, found.test.size] == [24, 6, 6]
    with pytest.raises(UserError, match="arrays: x_train has 30 images"):
        from_arrays((pixels(30), numbers(29)))


# --- splits and words --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.repeat([0, 1, 2, 3], [500, 40, 2, 1]))
    chosen, others = stratified(y_N, 100, rng)
    assert sorted([*chosen, *others]) == list(range(543))
    assert np.bincount(y_N[chosen], minlength=4).tolist()[2:] == [1, 0]
    assert abs(np.bincount(y_N[chosen])[0] / 500 - 100 / 543) < 0.02
    assert len(chosen) == 100
    again, _ = stratified(y_N, 100, np.random.default_rng(seed + 1))
    assert sorted(again) != sorted(chosen)


@pytest.mark.parametrize("number", [1, 2, 50, 541, 542])
def test_any_number_may_be_chosen(number):
    y_N = np.repeat([0, 1, 2, 3], [500, 40, 2, 1])
    chosen, others = stratified(y_N, number, np.random.default_rng(0))
    assert len(chosen) == number and len({*chosen, *others}) == 543


def test_what_was_read_is_two_lines():
    train = (pixels(30), numbers(30))
    found = from_arrays(train, (pixels(9), numbers(9)), class_names=CLASSES)
    first, second = summary.lines(found)
    assert (
        "24 training, 6 held-out, 9 test images of 4x5x3, uint8 0 to 255"
        in first
    )
    assert "3 classes (ant, bee, cat); images per class: training 8" in second
    lacking = found._replace(test=Split(pixels(2), np.array([0, 2])))
    _, _, third = summary.lines(lacking)
    assert third == "warning: test images lack class bee"

"""A run finds its images where they are now, and refuses other images."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import complaint
from tiny import TINY, flags, tiny

from jaxhypernas.cli.main import main
from jaxhypernas.config import data_file
from jaxhypernas.config import file as config_file
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import load
from jaxhypernas.run import Run

pytestmark = pytest.mark.usefixtures("quick_compiler")

SETTINGS = tiny(
    "nasbench201",
    "shared",
    "random",
    data=DataConfig("images.npz", limit=150),
    train=replace(TINY.train, steps=2),
)


def write_images(path: Path, seed: int = 0, classes: int = 3) -> None:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for part, number in (("train", 160), ("test", 40)):
        x = rng.integers(0, 256, (number, 8, 8, 1))
        arrays[f"x_{part}"] = x.astype(np.uint8)
        arrays[f"y_{part}"] = np.arange(number) % classes
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A directory with images and a trained run that names them by a relative path."""
    directory = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        write_images(directory / "images.npz")
        assert main(["train", "--workdir", "run", *flags(SETTINGS)]) == 0
    return directory


@pytest.fixture
def moved(begun, tmp_path) -> Path:
    """The same, but its images are gone."""
    directory = tmp_path / "moved"
    shutil.copytree(begun, directory)
    workdir = directory / "run"
    config = config_file.load(workdir / "config.json")
    data = replace(config.data, dataset=str(directory / "images.npz"))
    config_file.save(replace(config, data=data), workdir / "config.json")
    (directory / "images.npz").rename(directory / "elsewhere.npz")
    return directory


def test_a_relative_path_is_found_from_another_directory(
    begun, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    stored = config_file.load(begun / "run" / "config.json")
    assert stored.data.dataset == str(begun / "images.npz")
    assert len(Run(begun / "run").dataset.test.y_N) == 40


def test_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "cifar10"):
        (tmp_path / name).mkdir()
    for name in ("digits", "cifar10", "a/b:1.0.0", "gs://b/x.npz"):
        assert DataConfig(name).absolute() == DataConfig(name)
    there = DataConfig("cifar10", data_dir="cifar10").absolute()
    assert there.data_dir == str(tmp_path / "cifar10")


def test_moved_images_are_told_once(moved, capsys):
    words = ["score", "--random", "2", "--workdir", str(moved / "run")]
    assert "images.npz does not exist" in complaint(words)
    new = str(moved / "elsewhere.npz")
    assert main([*words, "--dataset", new]) == 0
    assert main(words) == 0
    train = ["train", "--workdir", str(moved / "run"), "--data.dataset", new]
    assert main(train) == 0


@pytest.mark.parametrize(
    ("other", "named"),
    [({"seed": 1}, "checksum"), ({"classes": 4}, "classes")],
)
def test_other_images_are_refused(moved, other, named):
    write_images(moved / "images.npz", **other)
    for verb in (["score", "--random", "2"], ["retrain"], ["train"]):
        line = complaint([*verb, "--workdir", str(moved / "run")])
        assert line.startswith("data.dataset:") and f"({named}:" in line
        assert "--dataset" in line
    assert not (moved / "run" / "scores").exists()


def test_parts_of_a_begun_run_need_no_images(moved):
    run = Run(moved / "run")
    assert run.parts.classes == 3
    assert run.identity.train + run.identity.valid == 150


def test_a_run_without_an_identity_gets_one(moved):
    workdir = moved / "run"
    (workdir / data_file.NAME).unlink()
    words = ["score", "--random", "2", "--workdir", str(workdir)]
    assert main([*words, "--dataset", str(moved / "elsewhere.npz")]) == 0
    began = data_file.load(workdir)
    assert began == data_file.identify(Run(workdir).dataset)


def test_a_damaged_identity_is_one_line(moved):
    (moved / "run" / data_file.NAME).write_text("{")
    words = ["score", "--random", "2", "--workdir", str(moved / "run")]
    assert complaint(words).startswith("workdir:")


def test_one_pixel_and_one_label_change_the_checksum():
    digits = load(DataConfig(limit=50), 0)
    began = data_file.identify(digits)
    pixels = digits.train.x_NxHxWxC.copy()
    pixels[0, 0, 0, 0] += 1
    labels = digits.valid.y_N.copy()
    labels[0] = (labels[0] + 1) % 10
    changed = digits._replace(train=digits.train._replace(x_NxHxWxC=pixels))
    relabelled = digits._replace(valid=digits.valid._replace(y_N=labels))
    sums = {data_file.identify(d).checksum for d in (changed, relabelled)}
    assert len(sums | {began.checksum}) == 3
    assert data_file.identify(load(DataConfig(limit=50), 0)) == began

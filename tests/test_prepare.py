"""An image set that is written as a prepared set is read back as it was."""

import numpy as np
import pytest

from jaxhypernas.cli.main import main
from jaxhypernas.data import prepare, prepared
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import load
from jaxhypernas.data.splits import Split

NAMES = ["cat", "dog", "a bird"]


def images(shape, dtype, number, seed=0):
    generator = np.random.default_rng(seed)
    x_NxHxWxC = generator.integers(0, 255, (number, *shape)).astype(dtype)
    return Split(x_NxHxWxC, np.arange(number, dtype=np.int32) % len(NAMES))


def write(folder, splits):
    """Writes a set; returns how many images were written and not found."""
    written = []
    prepare.write(
        folder, "mine", splits, NAMES, lambda images, new: written.append(new)
    )
    return sum(written)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(prepare, "SHARD_IMAGES", 8)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((5, 6, 1), np.uint8),
        ((5, 6, 3), np.uint8),
        ((5, 6, 4), np.uint8),
        ((5, 6, 2), np.uint8),
        ((5, 6, 3), np.float32),
    ],
)
def test_what_is_written_is_read(tmp_path, shape, dtype):
    splits = {
        "train": images(shape, dtype, 20),
        "test": images(shape, dtype, 3, 1),
    }
    assert write(tmp_path, splits) == 23
    found, classes, names = prepared.stored_splits(
        "mine", str(tmp_path), tuple(splits)
    )
    assert classes == 3 and names == tuple(NAMES)
    for stored, wanted in zip(found, splits.values(), strict=True):
        whole = stored.everything()
        assert whole.x_NxHxWxC.dtype == dtype
        np.testing.assert_array_equal(whole.x_NxHxWxC, wanted.x_NxHxWxC)
        np.testing.assert_array_equal(whole.y_N, wanted.y_N)


class KilledError(Exception):
    """The process ends."""


def test_a_stopped_command_goes_on(tmp_path, monkeypatch):
    splits = {"train": images((4, 4, 1), np.uint8, 30)}

    def killed(count, new):
        raise KilledError

    with pytest.raises(KilledError):
        prepare.write(tmp_path, "mine", splits, NAMES, killed)
    assert write(tmp_path, splits) == 30 - 8
    # A finished set is left alone.
    assert write(tmp_path, splits) == 0
    assert not list(tmp_path.rglob("*.crc"))


def test_another_source_is_not_mixed_in(tmp_path):
    first = {"train": images((4, 4, 1), np.uint8, 30)}
    second = {"train": images((4, 4, 1), np.uint8, 30, seed=1)}

    def killed(count, new):
        raise KilledError

    with pytest.raises(KilledError):
        prepare.write(tmp_path, "mine", first, NAMES, killed)
    assert write(tmp_path, second) == 30
    (stored,), _, _ = prepared.stored_splits("mine", str(tmp_path), ("train",))
    np.testing.assert_array_equal(
        stored.everything().x_NxHxWxC, second["train"].x_NxHxWxC
    )


def test_command_line(tmp_path, capsys):
    source = tmp_path / "My images.npz"
    train = images((4, 4, 3), np.uint8, 30)
    test = images((4, 4, 3), np.uint8, 6, seed=1)
    np.savez(
        source,
        x_train=train.x_NxHxWxC,
        y_train=train.y_N,
        x_test=test.x_NxHxWxC,
        y_test=test.y_N,
    )
    sets = tmp_path / "sets"
    words = ["prepare", str(source), "--data-dir", str(sets)]
    assert main(words) == 0
    assert f"wrote {sets}/my_images/1.0.0" in capsys.readouterr().out
    dataset = load(DataConfig("my_images", str(sets), stream=True), 0)
    assert dataset.source.size == 24
    assert main([*words, "--name", "../x"]) == 2
    assert "name: '../x'" in capsys.readouterr().err

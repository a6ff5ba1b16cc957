"""A trained hypernetwork is taken along, without the images that it was trained on."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pyarrow.csv
import pytest
from helpers import complaint
from tiny import tiny

from jaxhypernas.cli.main import main
from jaxhypernas.data.config import DataConfig
from jaxhypernas.programs import pretrained, training_verbs
from jaxhypernas.run import Run
from jaxhypernas.store import weights

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of grey images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 150), ("test", 60)):
        y = np.arange(number) % 3
        x = rng.integers(0, 90, (number, 8, 8)) + 80 * (y[:, None, None] == 1)
        arrays |= {f"x_{part}": x.astype(np.uint8), f"y_{part}": y}
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def config(images):
    data = DataConfig(dataset=str(images), pad=1)
    return dataclasses.replace(tiny("nasbench201", "ghn"), data=data)


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
    made = Run(tmp_path_factory.mktemp("runs") / "run", config)
    made.train()
    made.score(["|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"])
    return made


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """What `pack` writes, after the images are gone."""
    out = tmp_path_factory.mktemp("packs") / "mine"
    truth = out.parent / "truth.csv"
    space = run.parts.searched.space
    keys = jax.random.split(jax.random.key(1), 12)
    strings = [space.to_string(space.sample(key, 1.0)) for key in keys]
    truth.write_text(
        "arch,accuracy\n"
        + "".join(f"{text},{0.01 * i}\n" for i, text in enumerate(strings))
    )
    words = ["--workdir", str(run.workdir), "--out", str(out)]
    assert main(["pack", *words, "--truth", str(truth)]) == 0
    (out.parent / "archs.txt").write_text("\n".join(strings))
    away(run).parent.mkdir()
    shutil.move(run.config.data.dataset, away(run))
    return out


def away(run) -> Path:
    """Where the images are moved to."""
    return Path(run.config.data.dataset).parent / "away" / "mine.npz"


def score(packed, workdir, out):
    words = ["--pretrained", str(packed), "--workdir", str(workdir)]
    archs = str(packed.parent / "archs.txt")
    return main(["score", *words, "--archs", archs, "--out", str(out)])


def test_scores_are_those_of_the_run(run, packed, tmp_path):
    assert score(packed, tmp_path / "mine", tmp_path / "rows.csv") == 0
    found = pyarrow.csv.read_csv(tmp_path / "rows.csv").to_pylist()
    own = run.score([row["arch"] for row in found]).to_pylist()
    assert len(found) == 12
    for ours, theirs in zip(found, own, strict=True):
        for name, value in ours.items():
            same = value == theirs[name]
            assert same or value == pytest.approx(theirs[name], rel=1e-6)


def test_the_card_says_what_it_is(run, packed):
    text = (packed / "card.md").read_text()
    assert "12 architectures, truth accuracy" in text and "score" in text
    assert "Scores on: 30 held-out images" in text
    assert "8x8x1, 3 classes" in text and "8 steps" in text
    kept = {path.name.split(".")[0] for path in packed.rglob("*.*")}
    assert kept == {"card", "config", "data", "phi", "images"}


def test_the_random_sample_tells_how_scores_rank():
    counts = ("capacity", "separability", "live_params", "live_flops")
    rows = [
        {
            "group": "sample",
            "loss": i,
            "test_loss": i,
            **dict.fromkeys(counts, i),
        }
        for i in range(1, 9)
    ]
    best = {**rows[0], "group": "top", "test_loss": 100}
    lines = pretrained.of_sample([*rows, best], 200).splitlines()
    assert (
        lines[1].startswith("8 random candidates") and "200 steps" in lines[1]
    )
    assert any(
        line.startswith("generated weights") and "1.00 [" in line
        for line in lines
    )
    assert pretrained.of_sample(rows[:2], 200) == ""
    assert pretrained.of_sample([best], 200) == ""


def test_other_verbs_go_on_from_it(packed, tmp_path, capsys):
    workdir = ["--workdir", str(tmp_path / "mine")]
    assert score(packed, tmp_path / "mine", tmp_path / "rows.csv") == 0
    # The same command again goes on.
    assert score(packed, tmp_path / "mine", tmp_path / "rows.csv") == 0
    assert main(["score", *workdir, "--random", "5"]) == 0
    capsys.readouterr()
    assert main(["top", *workdir, "--number", "1"]) == 0
    arch = Run(tmp_path / "mine").best(1)["arch"][0].as_py()
    assert arch in capsys.readouterr().out
    out = ["--out", str(tmp_path / "out")]
    assert main(["export", *workdir, "--arch", arch, *out]) == 0
    assert "not trained" in (tmp_path / "out" / "card.md").read_text()


def test_training_goes_on_from_it(run, packed, tmp_path):
    began = Run(tmp_path / "new", tiny("nasbench201", "ghn"), run.dataset)
    began.begin_from(packed)
    later = dataclasses.replace(began.config.train, steps=8)
    assert began.config.train == later
    began.train()
    alone = Run(tmp_path / "alone", tiny("nasbench201", "ghn"), run.dataset)
    assert differ(alone.train(), began.phi)
    assert differ(run.phi, began.phi)


def differ(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any((x != y).any() for x, y in pairs)


@pytest.mark.parametrize("verb", ["train", "retrain", "search"])
def test_it_has_no_images_to_train_on(packed, tmp_path, verb):
    workdir = tmp_path / "mine"
    assert score(packed, workdir, tmp_path / "rows.csv") == 0
    line = complaint([verb, "--workdir", str(workdir)])
    assert "has no training images" in line and "--from" in line


def test_mistakes_are_one_line(run, packed, tmp_path):
    words = ["--workdir", str(run.workdir), "--dataset", str(away(run))]
    assert "holds something" in complaint(
        ["pack", *words, "--out", str(packed)]
    )
    absent = ["--pretrained", str(tmp_path), "--workdir", str(tmp_path / "x")]
    line = complaint(["score", *absent, "--random", "3"])
    assert "pretrained: " in line and "jaxhypernas pack" in line
    assert not (tmp_path / "x").exists()
    own = ["--pretrained", str(packed), *words[:2]]
    assert "another run" in complaint(["score", *own, "--random", "3"])

    assert score(packed, tmp_path / "mine", tmp_path / "rows.csv") == 0
    moved = ["--workdir", str(tmp_path / "mine"), *words[2:]]
    assert "dataset: " in complaint(["score", *moved, "--random", "3"])

    alone = ["--workdir", str(tmp_path / "alone")]
    begun = Run(tmp_path / "alone", tiny("nasbench201", "standalone"))
    training_verbs.begin(begun.parts, begun.dataset, begun.workdir)
    line = complaint(["pack", *alone, "--out", str(tmp_path / "y")])
    assert "generator: standalone" in line


@pytest.mark.parametrize("name", ["phi", "images"])
def test_damage_is_one_line(packed, tmp_path, name):
    copy = shutil.copytree(packed, tmp_path / "copy")
    (path,) = (copy / weights.NAME).glob(f"{name}.*")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    words = ["--pretrained", str(copy), "--workdir", str(tmp_path / "mine")]
    assert "is damaged" in complaint(["score", *words, "--random", "3"])

"""A winner as files: what they hold, and what they do where only Flax is."""

import json
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import complaint
from PIL import Image
from tiny import tiny

from jaxhypernas.cli.main import main
from jaxhypernas.data.batches import normalise
from jaxhypernas.run import Run
from jaxhypernas.store import weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

ALONE = """
import json, sys
import numpy as np
import network

model = network.load("weights.safetensors")
images = np.load(sys.argv[1])
together = np.asarray(model(network.preprocess(images)))
alone = [np.asarray(model(network.preprocess(x[None])))[0] for x in images]
assert "jaxhypernas" not in sys.modules
print(json.dumps({"together": together.tolist(), "alone": np.stack(alone).tolist()}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = Run(
        tmp_path_factory.mktemp("runs") / "run", tiny("nasbench201", "shared")
    )
    made.train()
    made.search()
    made.retrain()
    return made


@pytest.fixture(scope="module")
def out(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "winner"
    assert (
        main(["export", "--workdir", str(run.workdir), "--out", str(path)])
        == 0
    )
    return path


def python(out, *words):
    """Runs Python in the directory, without what the tests import."""
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(out) -> list[float]:
    text = (out / "card.md").read_text()
    return [float(x) for x in re.findall(r"\| (0\.\d{4}) ", text)]


def test_the_network_works_where_only_flax_is(run, out, tmp_path):
    """One image gets the same logits alone and in a batch."""
    test = run.dataset.test
    np.save(tmp_path / "images.npy", test.x_NxHxWxC[:6])
    found = json.loads(python(out, "-c", ALONE, str(tmp_path / "images.npy")))
    np.testing.assert_allclose(found["together"], found["alone"], atol=1e-5)

    data = (out / "network.stablehlo").read_bytes()
    compiled = jax.export.deserialize(bytearray(data))
    for images in (test.x_NxHxWxC[:6], test.x_NxHxWxC[:1]):
        logits = compiled.call(jnp.asarray(images))
        np.testing.assert_allclose(
            logits, found["together"][: len(images)], atol=1e-4
        )


def test_a_network_in_python_is_that_of_the_files(run, out, tmp_path):
    images = run.dataset.test.x_NxHxWxC[:6]
    np.save(tmp_path / "images.npy", images)
    found = json.loads(python(out, "-c", ALONE, str(tmp_path / "images.npy")))
    moments = run.dataset.mean_C, run.dataset.std_C
    x_BxHxWxC = normalise(jnp.asarray(images), *moments)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        logits = run.network()(x_BxHxWxC)
    np.testing.assert_allclose(logits, found["together"], atol=1e-5)


def test_the_card_has_the_accuracy_of_the_report(run, out):
    rows = run.retrained.read().to_pylist()
    top = [row for row in rows if row["group"] == "top"]
    winner = min(top, key=lambda row: row["trained_valid_loss"])
    running, by_batch, reported = figures(out)
    assert reported == round(winner["test_accuracy"], 4)
    assert by_batch == pytest.approx(winner["test_accuracy"], abs=1e-4)
    assert 0 <= running <= 1
    assert winner["arch"] in (out / "card.md").read_text()


def test_trained_weights_are_kept(run):
    """Under them a candidate has the loss that training from scratch gave it."""
    rows = run.retrained.read().to_pylist()
    top = [row for row in rows if row["group"] == "top"]
    kept = list((run.workdir / weights.NAME).iterdir())
    assert len(kept) == len(top)
    target = run.parts.searched.target
    theta = weights.load(run.workdir, top[0]["id"], target.weight_spec)
    arch = run.parts.searched.space.from_string(top[0]["arch"])
    images = run.dataset
    size = images.test.size // 10
    losses = []
    for t in range(10):
        part = images.test.take(np.arange(t * size, (t + 1) * size))
        x = normalise(jnp.asarray(part.x_NxHxWxC), images.mean_C, images.std_C)
        logits = target.apply(theta, arch, x)
        correct = jnp.take_along_axis(
            jax.nn.log_softmax(logits), part.y_N[:, None], 1
        )
        losses.append(-float(correct.mean()))
    assert np.mean(losses) == pytest.approx(top[0]["test_loss"], rel=1e-3)


def test_a_picture_is_classified(run, out, tmp_path):
    image = run.dataset.test.x_NxHxWxC[0, :, :, 0]
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "a.png")
    lines = python(out, "predict.py", str(tmp_path / "a.png")).splitlines()
    shares = [float(line.split("%")[0]) for line in lines]
    assert len(lines) == 5 and shares == sorted(shares, reverse=True)


def test_generated_weights(run, tmp_path):
    """The hypernetwork's weights for any architecture, cut and calibrated."""
    row = run.scores.best(40).to_pylist()[-1]
    cards = []
    for name in (row["arch"], row["id"][:8]):
        words = ["--workdir", str(run.workdir), "--arch", name]
        assert main(["export", *words, "--out", str(tmp_path)]) == 0
        cards.append((tmp_path / "card.md").read_text())
    assert cards[0] == cards[1]
    assert "written by the generator shared, not trained" in cards[0]
    assert "as reported" not in cards[0]


def test_any_architecture_is_trained_and_exported(run, tmp_path):
    """Operands in any order are the same architecture; nothing is trained twice."""
    text = "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|avg_pool_3x3~2|"
    archs = tmp_path / "archs.txt"
    archs.write_text(f"{text}\n{text}\n")
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    words = ["--workdir", str(workdir), "--archs", str(archs)]
    for _ in range(2):
        assert main(["retrain", *words]) == 0
        rows = Run(workdir).retrained.read().to_pylist()
        chosen = [row for row in rows if row["group"] == "chosen"]
        assert [row["arch"] for row in chosen] == [text]
    words = ["--workdir", str(workdir), "--arch", text, "--out", str(tmp_path)]
    assert main(["export", *words]) == 0
    reported = figures(tmp_path)[-1]
    assert reported == round(chosen[0]["test_accuracy"], 4)
    assert main(["export", *words, "--generated"]) == 0
    assert "not trained" in (tmp_path / "card.md").read_text()


def test_ids_stand_for_architectures(run, tmp_path, capsys):
    """In every verb and function that takes architectures; the table stays as it is."""
    best = run.scores.best(40).drop_columns("score")
    rows = best.to_pylist()[-4:]
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    copied = Run(workdir)
    ids = [row["id"][:8] for row in rows]
    assert copied.score([*ids, rows[0]["arch"]]).to_pylist() == [
        *rows,
        rows[0],
    ]

    archs = tmp_path / "archs.txt"
    archs.write_text("\n".join([*ids, rows[0]["arch"]]))
    words = ["--workdir", str(workdir), "--archs", str(archs)]
    assert (
        main(["score", *words, "--out", str(tmp_path / "rows.parquet")]) == 0
    )
    written = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["arch"] for row in written] == [
        row["arch"] for row in [*rows, rows[0]]
    ]
    assert len(Run(workdir).scores) == len(run.scores)

    truth = tmp_path / "truth.csv"
    truth.write_text(
        "arch,accuracy\n"
        + "".join(f"{name},{0.1 * i}\n" for i, name in enumerate(ids))
    )
    assert (
        main(["rank", "--workdir", str(workdir), "--truth", str(truth)]) == 0
    )
    assert "4 architectures" in capsys.readouterr().out

    archs.write_text(f"{ids[0]}\n0123456789abcdef\n")
    line = complaint(["retrain", *words])
    assert "row 2" in line and "no candidate" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "9"], "rank: 9 must be in 1 .. 2"),
        (["--arch", "nonsense"], "arch"),
        (["--arch", "0123456789abcdef"], "no candidate"),
        (
            ["--arch", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"],
            "no path leads",
        ),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, words, said, capsys):
    out = ["--workdir", str(run.workdir), "--out", str(tmp_path)]
    assert main(["export", *out, *words]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("jaxhypernas: ") and said in last
    assert not list(tmp_path.iterdir())


def test_out_must_be_a_directory(run, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--workdir", str(run.workdir), "--out", str(tmp_path / "file")]
    assert "out: " in complaint(["export", *words])


def test_damaged_weights_are_refused(run, tmp_path):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    for path in (workdir / weights.NAME).iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    words = ["--workdir", str(workdir), "--out", str(tmp_path / "out")]
    assert "is damaged" in complaint(["export", *words])
    for path in (workdir / weights.NAME).iterdir():
        path.unlink()
    assert "has no weights" in complaint(["export", *words])

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.types import UserError


def make_state(step, width=40):
    params = {
        "w": jax.random.normal(jax.random.key(step), (width, 50)),
        "b": jnp.full((7,), step, jnp.bfloat16),
    }
    return {
        "step": jnp.int32(step),
        "params": params,
        "optimizer": optax.adam(1e-3).init(params),
        "nan": jnp.array([jnp.nan, -0.0, jnp.inf]),
        "keys": jax.random.split(jax.random.key(step), 3),
        "rbg": jax.random.key(step, impl="rbg"),
        "mask": jnp.array([True, False]),
    }


def assert_identical(state, expected):
    def raw(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return (
            leaf.dtype,
            leaf.shape,
            np.asarray(
                jax.random.key_data(leaf) if is_key else leaf
            ).tobytes(),
        )

    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert jax.tree.map(raw, state) == jax.tree.map(raw, expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1, 2 and 3, of which the newest two are kept. Copy before damaging."""
    directory = tmp_path_factory.mktemp("saved")
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
    return directory


def found(result):
    assert result is not None
    return result


def steps_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_no_steps(tmp_path):
    with Checkpoints(tmp_path / "new" / "one") as checkpoints:
        assert checkpoints.restore(make_state(0)) is None


@pytest.mark.parametrize(
    "like",
    [make_state, lambda step: jax.eval_shape(make_state, step)],
    ids=["arrays", "shapes"],
)
def test_round_trip_is_bit_identical(saved, like):
    with Checkpoints(saved) as checkpoints:
        step, state = found(checkpoints.restore(like(0)))
    assert step == 3
    assert_identical(state, make_state(3))
    assert isinstance(state["optimizer"][0], optax.ScaleByAdamState)


def test_restores_to_the_sharding_asked_for(saved):
    mesh = jax.make_mesh((4,), ("arch",))
    split = jax.sharding.NamedSharding(
        mesh, jax.sharding.PartitionSpec("arch")
    )
    like = jax.eval_shape(make_state, 0)
    like["params"]["w"] = jax.ShapeDtypeStruct(
        (40, 50), jnp.float32, sharding=split
    )
    with Checkpoints(saved) as checkpoints:
        _, state = found(checkpoints.restore(like))
    assert state["params"]["w"].sharding == split
    assert_identical(state, make_state(3))


def test_state_may_be_donated_after_save(tmp_path):
    update = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        x = jnp.zeros((500, 500))
        checkpoints.save(1, x)
        for _ in range(20):
            x = update(x)
        assert_identical(
            found(checkpoints.restore(x))[1], jnp.zeros((500, 500))
        )


@pytest.mark.parametrize("reopened", [False, True])
def test_the_newest_two_are_kept(tmp_path, reopened):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 6):
        checkpoints.save(step, jnp.int32(step))
        if reopened:
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path)
    checkpoints.close()
    assert steps_in(tmp_path) == ["4", "5"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(jnp.int32(0)) == (5, 5)


def test_a_step_is_not_saved_twice(saved):
    with (
        Checkpoints(saved) as checkpoints,
        pytest.raises(UserError, match="step 3 is already in"),
    ):
        checkpoints.save(3, make_state(3))


# --- damage -------------------------------------------------------------------


# Tensorstore's threads complain for each leaf that is still being read when orbax gives
# up at the first leaf that fails.
def abandons_reads(test):
    for mark in (
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    ):
        test = pytest.mark.filterwarnings(mark)(test)
    return pytest.mark.usefixtures("collected")(test)


@pytest.fixture
def collected():
    """Collects garbage within the test, so that its complaints fail no other test."""
    yield
    time.sleep(0.1)
    gc.collect()


def small_state(step):
    return {
        "w": jax.random.normal(jax.random.key(step), (20, 30)),
        "key": jax.random.key(step),
    }


@pytest.fixture(scope="module")
def saved_small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, small_state(step))
    return directory


def flip(where, path):
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 4
    path.write_bytes(data)


HARMS = {
    "flip first": lambda path: flip(0, path),
    "flip third": lambda path: flip(1 / 3, path),
    "flip middle": lambda path: flip(1 / 2, path),
    "flip last": lambda path: flip(1, path),
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "remove": Path.unlink,
}


@abandons_reads
@pytest.mark.parametrize("harm", HARMS)
def test_damage_to_any_file_is_never_silent(saved_small, tmp_path, harm):
    """Harms each file in turn: it changes nothing, or it is reported and the step
    before is used.
    """
    files = [
        path.relative_to(saved_small)
        for path in sorted((saved_small / "2").rglob("*"))
        if path.is_file()
    ]
    assert len(files) >= 4
    fell_back = set()
    for number, file in enumerate(files):
        directory, lines = tmp_path / str(number), []
        shutil.copytree(saved_small, directory)
        HARMS[harm](directory / file)
        with Checkpoints(directory, lines.append) as checkpoints:
            step, state = found(checkpoints.restore(small_state(0)))
        assert step == 2 - len(lines), (file, lines)
        assert_identical(state, small_state(step))
        if lines:
            fell_back.add(file.parts[1])
    assert {"record", "state"} <= fell_back


def replace(old, new, path):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def clear(directory):
    shutil.rmtree(directory)
    directory.mkdir()


@abandons_reads
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (clear, "record"),
        (lambda path: shutil.rmtree(path / "record"), "record"),
        (lambda path: shutil.rmtree(path / "state"), "state"),
        (lambda path: flip(0.1, path / "record" / "metadata"), "record"),
        (
            lambda path: replace(
                b"float32[3]", b"float32[4]", path / "record" / "metadata"
            ),
            "record",
        ),
    ],
    ids=["empty step", "no record", "no state", "wrong record", "wrong kind"],
)
def test_damaged_step_moves_aside_and_is_saved_again(
    saved, tmp_path, harm, reason
):
    directory, lines = tmp_path / "damaged", []
    shutil.copytree(saved, directory)
    harm(directory / "3")
    with Checkpoints(directory, lines.append) as checkpoints:
        assert found(checkpoints.restore(make_state(0)))[0] == 2
        assert len(lines) == 1 and "\n" not in lines[0]
        assert (
            "step 3 is damaged" in lines[0]
            and reason in lines[0]
            and "3.damaged" in lines[0]
        )
        checkpoints.save(3, make_state(3))
        assert_identical(
            found(checkpoints.restore(make_state(0)))[1], make_state(3)
        )
        harm(directory / "3")
        assert found(checkpoints.restore(make_state(0)))[0] == 2
    assert steps_in(directory) == ["2", "3.damaged", "3.damaged+"], (
        "and nothing is lost"
    )


def test_all_damaged(saved, tmp_path):
    directory = tmp_path / "damaged"
    shutil.copytree(saved, directory)
    for step in "23":
        shutil.rmtree(directory / step / "record")
    for _ in range(2):
        with (
            Checkpoints(directory) as checkpoints,
            pytest.raises(UserError, match="rename the directory") as caught,
        ):
            checkpoints.restore(make_state(0))
        assert str(directory) in str(caught.value) and "\n" not in str(
            caught.value
        )
    assert steps_in(directory) == ["2", "3"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO)),
        ValueError("UNKNOWN: reading failed [os_error_code='13']"),
        MemoryError("not enough"),
    ],
    ids=["disk", "tensorstore", "memory"],
)
def test_a_step_that_cannot_be_read_now_is_not_damaged(
    saved, monkeypatch, error
):
    with Checkpoints(saved, pytest.fail) as checkpoints:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "_read", Mock(side_effect=error))
            with pytest.raises(UserError, match=r"step 3 .* cannot be read"):
                checkpoints.restore(make_state(0))
        assert found(checkpoints.restore(make_state(0)))[0] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda like: like | {"step": jnp.float32(0)},
        lambda like: like | {"nan": jnp.zeros(4)},
        lambda like: (
            like | {"keys": jax.random.split(jax.random.key(0, impl="rbg"), 3)}
        ),
        lambda like: like | {"more": jnp.zeros(4)},
        lambda like: {
            name: leaf for name, leaf in like.items() if name != "nan"
        },
    ],
    ids=["dtype", "shape", "key", "more", "fewer"],
)
def test_state_of_another_configuration(saved, change):
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(
            UserError, match=r"leaf \['\w+'\] is .*, expected .*configuration"
        ):
            checkpoints.restore(change(make_state(0)))
        assert found(checkpoints.restore(make_state(0)))[0] == 3, (
            "nothing was moved"
        )


def test_default_report_is_a_line_on_stderr(saved, tmp_path, capsys):
    directory = tmp_path / "damaged"
    shutil.copytree(saved, directory)
    shutil.rmtree(directory / "3" / "record")
    with Checkpoints(directory) as checkpoints:
        checkpoints.restore(make_state(0))
    assert capsys.readouterr().err.count("checkpoints: step 3 is damaged") == 1


# --- a killed save ------------------------------------------------------------

SAVE_FOR_EVER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from test_checkpoint import Checkpoints, make_state
checkpoints = Checkpoints(sys.argv[1])
for step in itertools.count(1):
    checkpoints.save(step, make_state(step, width=20000))
"""


def mid_save(directory):
    names = steps_in(directory)
    return sum(map(str.isdigit, names)) >= 2 and any(
        "tmp" in name for name in names
    )


def test_kill_during_save(tmp_path):
    command = [
        sys.executable,
        "-c",
        SAVE_FOR_EVER,
        str(tmp_path),
        str(Path(__file__).parent),
    ]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        stopped = False
        while not (stopped and mid_save(tmp_path)):
            assert time.monotonic() < deadline and process.poll() is None
            if stopped:  # too late: that save ended before the process stopped
                process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
            if stopped := mid_save(tmp_path):
                process.send_signal(signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)
        process.kill()
    newest = max(int(name) for name in steps_in(tmp_path) if name.isdigit())

    lines = []
    with Checkpoints(tmp_path, lines.append) as checkpoints:
        step, state = found(
            checkpoints.restore(
                jax.eval_shape(lambda: make_state(0, width=20000))
            )
        )
        assert step == newest and not lines
        assert_identical(state, make_state(newest, width=20000))
        checkpoints.save(newest + 1, state)
    assert not any("tmp" in name for name in steps_in(tmp_path))

"""Random mistakes in files that a user gives: architectures, truth and images."""

import io
import string
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Archs = Mapping[str, list[str]]
"""Architecture strings of each space."""

Mistake = tuple[str, bytes | None, tuple[str, ...]]
"""A file's name, its content, and names of which the complaint has one."""


def listed(words: str, *more: str) -> tuple[str, ...]:
    """The words of a text, and others that are empty or have spaces."""
    return *words.split(), *more


def npz(**arrays: Any) -> bytes:
    """The bytes of an ``.npz``."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def csv(header: str, lines: list[str], encoding: str = "utf-8") -> bytes:
    """The bytes of a CSV."""
    return "\n".join([header, *lines, ""]).encode(encoding)


def random_images(
    rng: Random, height: int = 8, width: int = 8
) -> dict[str, np.ndarray]:
    """The arrays of a set of images that is in order."""
    draw = np.random.default_rng(rng.randrange(99))
    x = draw.integers(0, 256, (60, height, width, 1), np.uint8)
    y = np.arange(60, dtype=np.int32) % 3
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}


def mutated(rng: Random, space: str, arch: str, others: list[str]) -> str:
    """An architecture's string, changed so that it is none of the space."""
    # A memory bank's string begins with an optional b; a string that is cut after its
    # last / or before its | may be an architecture, too.
    first = 1 if space == "memory_bank" and arch[0] == "b" else 0
    letters = [i for i, c in enumerate(arch) if c.isalpha() and i >= first]
    end = {"memory_bank": arch.rfind("/"), "nasbench101": arch.find("|")}
    at = rng.choice(letters)
    digit = rng.choice([i for i, c in enumerate(arch) if c.isdigit()])
    strange = rng.choice(("z", "Z", "?", "\N{SNOWMAN}", "\x7f"))
    number = rng.choice(("99", "-1", "\N{SUPERSCRIPT TWO}"))
    nothing = listed("nan None 0 {} [] | ; /", "x" * 10**6, "-" * 9)
    noise = rng.choices(string.printable.strip(), k=rng.randrange(1, 90))
    return rng.choice(
        (
            arch[:at] + arch[at + 1 :],
            arch[:at] + strange + arch[at:],
            arch[:-1],
            arch[: rng.randrange(1, end.get(space, len(arch)))],
            arch[:digit] + number + arch[digit + 1 :],
            arch[:digit] + number + arch[digit + 1 :],
            arch + arch,
            f"{arch};{arch}",
            arch.upper(),
            rng.choice(others),
            "".join(noise),
            rng.choice(nothing),
        )
    )


def with_a_mistake(
    rng: Random, space: str, archs: Archs, far: bool
) -> list[str]:
    """Architectures, and among them, or far behind them, a string that is none."""
    others = [arch for s in archs if s != space for arch in archs[s]]
    good = rng.sample(archs[space], 4)
    bad = mutated(rng, space, rng.choice(good), others)
    return [*good * 1100, bad] if far else [*good, bad, *good]


def truth_of(archs: list[str]) -> bytes:
    """A CSV of architectures, each with a truth."""
    quoted = [arch.replace('"', '""') for arch in archs]
    lines = [f'"{arch}",{i}' for i, arch in enumerate(quoted)]
    return csv("arch,accuracy", lines)


def unreadable(rng: Random, good: list[str], field: str) -> list[Mistake]:
    """Files of which no architecture can be read, or not all of them."""
    rows = [f'"{arch}",1' for arch in good]
    header = "arch,accuracy"
    ones = [1.0] * len(good)
    whole = parquet(arch=good, accuracy=ones)
    cut = rng.randrange(len(whole) - 1)
    empty = {"arch": pa.array([], pa.string()), "accuracy": pa.array([], "f8")}
    strings = {
        "numbers": [1, 2, 3, 4, 5],
        "nothing": [*good[:4], None],
        "lists": [[arch] for arch in good],
    }
    kind = rng.choice(("txt", "csv", "parquet"))
    contents = {
        f"f.{kind}": [(None, field)],
        "f.csv": [
            (rng.choice((b"", b"\n\n", b"arch,accuracy\n")), field),
            (csv("name,accuracy", rows), "arch"),
            (csv(header, [*rows, ",\n\xff"], "latin-1"), field),
            (csv(header, ["x" * 200_000 + ",1"]), f"arch {field}"),
            (csv(header, [*rows, "", ",3"]), "arch"),
        ],
        "f.parquet": [
            (whole[:cut], field),
            (rng.randbytes(200), field),
            (b"", field),
            (parquet(**empty), field),
            (parquet(accuracy=ones), "arch"),
            *(
                (parquet(arch=a, accuracy=ones), "arch")
                for a in strings.values()
            ),
        ],
        "f": [(rng.randbytes(200) + b"\xff", f"arch {field}")],
    }
    return flat(contents)


def no_truth(rng: Random, good: list[str]) -> list[Mistake]:
    """Files whose architectures are in order, but not their truth."""
    quoted = [f'"{arch}"' for arch in good]
    wrong = rng.choice(listed("nan inf -inf best 0.9%% None", "", "1,2"))
    numbers = ["0.1", "0.2", "0.3", "0.4", wrong]
    rows = [f'{a},"{n}"' for a, n in zip(quoted, numbers, strict=True)]
    ones = [f"{arch},1" for arch in quoted]
    bools = [True, None, False, True, True]
    contents = {
        "f.csv": [
            (csv("arch,accuracy", rows), "accuracy truth"),
            (csv("arch,accuracy", quoted), "accuracy"),
            (csv("arch,acc", ones), "accuracy"),
            (csv("arch,accuracy", ones[: rng.randrange(1, 3)]), "truth"),
        ],
        "f.parquet": [
            (parquet(arch=good, accuracy=bools), "accuracy"),
            (parquet(arch=good, accuracy=[["x"]] * 5), "accuracy"),
        ],
        "f.txt": [("\n".join(good).encode(), "accuracy")],
    }
    return flat(contents)


def flat(contents: dict[str, list]) -> list[Mistake]:
    """Mistakes in a list; a complaint's names are words of one text."""
    return [
        (file, content, tuple(names.split()))
        for file, several in contents.items()
        for content, names in several
    ]


def broken_images(rng: Random) -> bytes:
    """An ``.npz`` that cannot be read, or that nothing can be trained on."""
    good = random_images(rng)
    x = good["x_train"]
    y = good["y_train"]
    name = rng.choice(list(good))
    images = rng.choice(("x_train", "x_test"))
    labels = rng.choice(("y_train", "y_test"))
    pixel = rng.choice((np.nan, np.inf, 3))
    changes: list[tuple[str, Any]] = [
        (name, good[name][:-1]),
        (name, good[name][:0]),
        (name, np.float64(3)),
        (name, good[name].astype(str)),
        (labels, y.astype(np.float32)),
        (labels, y - 1),
        (labels, y.astype(np.int64) + 2**40),
        (labels, y[:, None]),
        ("y_train", 2 * y),
        ("y_train", 0 * y),
        ("y_test", y + 1),
        (images, np.full(x.shape, pixel, np.float32)),
        (images, x.astype(bool)),
        (images, x[..., None]),
        (images, x[:, :, :7]),
        (images, x[:, 0, 0, 0]),
        (images, x.astype(complex)),
    ]
    whole = npz(**good)
    cut = whole[: rng.randrange(len(whole) - 1)]
    lacking = {key: array for key, array in good.items() if key != name}
    broken = [npz(**good | dict([change])) for change in changes]
    return rng.choice([cut, b"", rng.randbytes(200), npz(**lacking), *broken])

"""A file of the package imports only from rows above its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxhypernas"

# A name that ends in a slash is a folder; its files may import each other. Names of one row never import each other.
ROWS = (
    ("types.py", "mesh.py", "processes.py", "lastwords.py"),
    (
        "rollcall.py",
        "nn.py",
        "cpu/",
        "stats.py",
        "sources.py",
        "checkpoint.py",
        "table.py",
        "progress.py",
        "interrupt.py",
        "compilations.py",
        "hlo.py",
    ),
    ("data.py", "spaces/", "scored.py"),
    ("loader.py", "targets/", "generators/", "search/"),
    ("predict.py", "conformance.py"),
    ("train.py", "score.py"),
    ("retrain.py", "report.py"),
    ("config.py",),
    ("components.py",),
    ("limits.py",),
    ("run.py", "preflight.py"),
    ("cli.py", "__init__.py"),
    ("__main__.py",),
)
ROW_OF = {place: row for row, places in enumerate(ROWS) for place in places}


def imported_modules(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """The line and the full dotted name of everything a file imports, wherever in the file."""
    folder = (package.name, *file.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = (
                folder[: len(folder) - node.level + 1] if node.level else ()
            )
            base = ".".join((*prefix, node.module) if node.module else prefix)
            yield from (
                (node.lineno, f"{base}.{alias.name}") for alias in node.names
            )


def place_of_module(name: str, package: Path) -> str | None:
    """The table entry that a dotted name lies in, or None where it is not of the package."""
    root, _, rest = name.partition(".")
    if root != package.name:
        return None
    part = rest.partition(".")[0]
    for place, path in (
        (f"{part}.py", package / f"{part}.py"),
        (f"{part}/", package / part),
    ):
        if part and (place in ROW_OF or path.exists()):
            return place
    return "__init__.py"


def violations(package: Path) -> list[str]:
    """One line for each file without a place in the table and each import that does not point upwards."""
    found = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        place = path.name if len(path.parts) == 1 else f"{path.parts[0]}/"
        if place not in ROW_OF:
            found.append(
                f"{path}: has no place; put {place!r} in a row of ROWS in tests/test_layers.py"
            )
            continue
        for line, name in imported_modules(file, package):
            target = place_of_module(name, package)
            if (
                target in ROW_OF
                and target != place
                and ROW_OF[target] >= ROW_OF[place]
            ):
                found.append(
                    f"{path}:{line}: imports {name}, which is not in a row above {place!r}"
                )
    return found


def test_imports_point_upwards():
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        (
            "generators/ghn.py",
            "from jaxhypernas.targets.cell import apply",
            "generators/ghn.py:1: imports",
        ),
        (
            "generators/ghn.py",
            "from jaxhypernas import targets",
            "generators/ghn.py:1: imports",
        ),
        (
            "generators/ghn.py",
            "from ..targets import cell",
            "generators/ghn.py:1: imports",
        ),
        (
            "search/random.py",
            "def f():\n    import jaxhypernas.generators.ghn",
            "search/random.py:2: imports",
        ),
        (
            "train.py",
            "from jaxhypernas.score import score",
            "train.py:1: imports",
        ),
        ("nn.py", "import jaxhypernas", "nn.py:1: imports"),
        ("nn.py", "from . import train", "nn.py:1: imports"),
        ("stray.py", "", "stray.py: has no place"),
        ("extra/stray.py", "", "extra/stray.py: has no place"),
        (
            "generators/ghn.py",
            "from jaxhypernas.spaces import pnas\nfrom . import shared",
            None,
        ),
        (
            "predict.py",
            "import jax\nfrom jaxhypernas import nn\nfrom jaxhypernas.targets.cell import apply",
            None,
        ),
    ],
)
def test_planted_import(tmp_path, file, source, complaint):
    package = tmp_path / "jaxhypernas"
    planted = package / file
    for name in (
        "nn.py",
        "score.py",
        "train.py",
        "spaces/pnas.py",
        "targets/cell.py",
        "generators/shared.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    found = violations(package)
    assert (
        not found
        if complaint is None
        else len(found) == 1 and found[0].startswith(complaint)
    ), found

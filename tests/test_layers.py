"""A file of the package imports only from rows above its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxhypernas"

DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"


def rows_of(document: str) -> list[list[str]]:
    """The rows of the document's table. A name that ends in a slash is a folder,
    whose files may import each other."""
    table = document.split("## Rows")[1].split("```")[1].strip()
    return [re.split("  +", line)[0].split() for line in table.splitlines()]


ROWS = rows_of(DOCUMENT.read_text(encoding="utf-8"))
ROW_OF = {place: row for row, places in enumerate(ROWS) for place in places}


def is_for_checkers(node: ast.AST) -> bool:
    """Whether a block runs for type checkers only."""
    return (
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but those that run for type checkers only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_checkers(child):
            yield from running(child)


def imported_modules(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """The line and the full dotted name of all that a file imports, anywhere in it."""
    folder = (package.name, *file.relative_to(package).parent.parts)
    for node in running(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            depth = len(folder) - node.level + 1
            prefix = folder[:depth] if node.level else ()
            parts = (*prefix, node.module) if node.module else prefix
            for alias in node.names:
                yield node.lineno, ".".join((*parts, alias.name))


def place_of_module(name: str, package: Path) -> str | None:
    """The room of a dotted name; None if the name is not of the package."""
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
    """A line for each file without a room, and for each import that points down."""
    found = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        place = path.name if len(path.parts) == 1 else f"{path.parts[0]}/"
        if place not in ROW_OF:
            found.append(
                f"{path}: has no place; put {place!r} in a row of docs/architecture.md"
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
                    f"{path}:{line}: imports {name}, which is not in a row "
                    f"above {place!r}"
                )
    return found


def test_imports_point_upwards():
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


PLANTED = [
    ("generators/ghn.py", "from jaxhypernas.targets.cell import apply", 1),
    ("generators/ghn.py", "from jaxhypernas import targets", 1),
    ("generators/ghn.py", "from ..targets import cell", 1),
    ("search/random.py", "def f():\n    import jaxhypernas.generators.ghn", 2),
    ("data/loader.py", "from jaxhypernas.store import files", 1),
    ("run.py", "from . import cli", 1),
    ("stray.py", "", None),
    ("extra/stray.py", "", None),
]
ALLOWED = [
    (
        "generators/ghn.py",
        "from jaxhypernas.archs import cells\nfrom . import hyper",
    ),
    ("store/files.py", "import jax\nimport jaxhypernas"),
    ("types.py", "if TYPE_CHECKING:\n    from jaxhypernas.run import Run"),
]


def plant(package: Path, file: str, source: str) -> list[str]:
    planted = package / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    return violations(package)


@pytest.mark.parametrize(("file", "source", "line"), PLANTED)
def test_planted_import_is_found(tmp_path, file, source, line):
    found = plant(tmp_path / "jaxhypernas", file, source)
    complaint = f"{file}:{line}: imports" if line else f"{file}: has no place"
    assert len(found) == 1 and found[0].startswith(complaint), found


@pytest.mark.parametrize(("file", "source"), ALLOWED)
def test_import_from_above_passes(tmp_path, file, source):
    assert not plant(tmp_path / "jaxhypernas", file, source)

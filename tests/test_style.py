"""Files and functions of the package stay short."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jaxhypernas"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60  # without the docstring


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, less those of the function's own docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (
            (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        )
    return lines


def too_long(name: str, source: str) -> list[str]:
    """One line for a file and for each of its functions above the limit."""
    lines = len(source.splitlines())
    found = (
        [f"{name}: {lines} lines, at most {MAX_FILE_LINES}"]
        if lines > MAX_FILE_LINES
        else []
    )
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and length(node) > MAX_FUNCTION_LINES
        ):
            found.append(
                f"{name}:{node.lineno}: {node.name} has {length(node)} lines, at most {MAX_FUNCTION_LINES}"
            )
    return found


def test_files_and_functions_are_short():
    files = sorted(PACKAGE.rglob("*.py"))
    assert files
    found = [
        line
        for f in files
        for line in too_long(
            str(f.relative_to(PACKAGE)), f.read_text(encoding="utf-8")
        )
    ]
    assert not found, "\n".join(found)


def test_planted_lengths():
    docstring = '    """One.\n' + "\n" * 50 + '    """\n'
    assert not too_long("a.py", "def f():\n" + docstring + "    x = 1\n" * 59)
    assert too_long("a.py", "def f():\n" + docstring + "    x = 1\n" * 60) == [
        "a.py:1: f has 61 lines, at most 60"
    ]
    assert not too_long("a.py", "x = 1\n" * 400)
    assert too_long("a.py", "x = 1\n" * 401) == ["a.py: 401 lines, at most 400"]

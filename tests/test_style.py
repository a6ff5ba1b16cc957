"""The package stays easy to read: short files, air, documented arguments."""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxhypernas"
FILES = sorted(PACKAGE.rglob("*.py"))

MOST_TOKENS = 2500
MOST_TOKENS_PER_LINE = 8.0
MOST_FUNCTION_LINES = 60
MOST_ENTRIES = 20
LEAST_WITH_ARGUMENTS = 0.6

SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a bare string: documentation."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def tokens_and_lines(source: str) -> tuple[int, int]:
    """Tokens of code, and lines that hold one; docstrings do not count.

    The text under a field counts: it is a statement.
    """
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        has_docstring = isinstance(node, ast.Module | ast.ClassDef | Function)
        if has_docstring and node.body and is_docstring(node.body[0]):
            first = node.body[0]
            last = first.end_lineno or first.lineno
            documentation.update(range(first.lineno, last + 1))
    tokens = 0
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_text = token.type == tokenize.STRING
        if token.type in SILENT:
            continue
        if is_text and token.start[0] in documentation:
            continue
        tokens += 1
        lines.update(range(token.start[0], token.end[0] + 1))
    return tokens, len(lines)


def length(function: Function) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if is_docstring(first):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Public functions and methods of a module that take an argument."""
    for node in tree.body:
        is_class = isinstance(node, ast.ClassDef)
        if is_class and node.name.startswith("_"):
            continue
        for item in node.body if is_class else [node]:
            if not isinstance(item, Function) or item.name.startswith("_"):
                continue
            names = [a.arg for a in (*item.args.args, *item.args.kwonlyargs)]
            if set(names) - {"self", "cls"}:
                yield item


def test_files_have_few_tokens():
    tokens = {f: tokens_and_lines(f.read_text())[0] for f in FILES}
    long = {str(f): n for f, n in tokens.items() if n > MOST_TOKENS}
    assert tokens and not long, f"at most {MOST_TOKENS} tokens: {long}"


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="an f-string is several tokens there"
)
def test_lines_have_air():
    counts = [tokens_and_lines(f.read_text()) for f in FILES]
    tokens = sum(tokens for tokens, _ in counts)
    lines = sum(lines for _, lines in counts)
    assert tokens / lines <= MOST_TOKENS_PER_LINE


def test_functions_are_short():
    functions = [
        (f.name, node.name, length(node))
        for f in FILES
        for node in ast.walk(ast.parse(f.read_text()))
        if isinstance(node, Function)
    ]
    assert not [each for each in functions if each[2] > MOST_FUNCTION_LINES]


def test_arguments_are_documented():
    functions = [
        (f.name, node.name, "Args:" in (ast.get_docstring(node) or ""))
        for f in FILES
        for node in public_functions(ast.parse(f.read_text()))
    ]
    without = [f"{file}: {name}" for file, name, has in functions if not has]
    assert len(without) <= (1 - LEAST_WITH_ARGUMENTS) * len(functions), without


def test_arguments_have_types():
    functions = [
        (file.name, item)
        for file in FILES
        for node in ast.parse(file.read_text()).body
        for item in (*getattr(node, "body", []), node)
        if isinstance(item, Function)
        and (item is node or isinstance(node, ast.ClassDef))
    ]
    without = [
        f"{file}: {function.name}({argument.arg})"
        for file, function in functions
        for argument in (*function.args.args, *function.args.kwonlyargs)
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    assert functions and not without, without


def test_the_tree_is_small_enough_to_read():
    entries = [
        path.name
        for path in PACKAGE.iterdir()
        if path.is_file() or any(path.glob("*.py"))
    ]
    assert len(entries) <= MOST_ENTRIES, entries


def test_measures():
    source = 'def f(a):\n    """One.\n\n    Two.\n    """\n    return a + 1\n'
    assert tokens_and_lines(source) == (10, 2)
    (function,) = public_functions(ast.parse(source))
    assert length(function) == 2

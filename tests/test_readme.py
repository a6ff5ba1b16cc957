"""README keeps its promises: its Python runs, its commands are understood."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from jaxhypernas.cli.main import understand
from jaxhypernas.families import FAMILIES

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, text in BLOCKS
    for line in text.splitlines()
    if not language and re.match(r"(\w+=\S+ )*jaxhypernas ", line)
]

SMALLER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from jaxhypernas.config import PRESETS
from tiny import TINY
PRESETS["small"] = TINY
"""
"""Makes the preset that README names a run of seconds."""


def test_python_blocks_run_in_order(tmp_path):
    assert len(PYTHON) >= 3
    program = tmp_path / "readme.py"
    program.write_text("\n".join([SMALLER, *PYTHON]))
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "jaxhypernas: " not in done.stderr
    runs = {path.name for path in (tmp_path / "runs").iterdir()}
    assert runs == {"demo"}, "a run is begun that README says is not"
    assert (tmp_path / "runs" / "demo" / "report.md").exists()


@pytest.fixture
def no_plugins():
    """Families of plug-ins are gone after a test."""
    before = dict(FAMILIES)
    yield
    for name in set(FAMILIES) - set(before):
        del FAMILIES[name]


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, monkeypatch, tmp_path):
    # Plug-ins are named by their place in the repository, work directories are new.
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    words = command.partition("jaxhypernas ")[2].removesuffix(" &").split()
    assert understand(words) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["experiments"]


def test_commands_are_found():
    verbs = {
        command.partition("jaxhypernas ")[2].split()[0] for command in COMMANDS
    }
    assert {"search", "train", "score", "top", "rank", "compile"} <= verbs

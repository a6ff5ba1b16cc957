"""A search that cannot begin is one clear line, before anything is trained."""

import pytest
from tiny import TINY, flags

from jaxhypernas.cli import main as cli

MISTAKES = {
    "too few parameters": (
        ["--max-params", "1"],
        "search.max_params: 1 is too few: the smallest",
    ),
    "too few FLOPs": (
        ["--max-flops=2", "--strategy", "evolution", "--search.population=9"],
        "search.max_flops: 2 is too few: the smallest",
    ),
    "no growth": (["--strategy", "progressive"], "memory_bank's do not"),
    "population": (
        ["--strategy", "nsga2", "--search.population", "99"],
        "search.population: 99 must be at most",
    ),
    "limit": (["--max-params", "-3"], "search.max_params"),
    "objective": (["--search.objective", "size"], "search.objective"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_begins_nothing(
    mistake, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    words, said = MISTAKES[mistake]
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["search", "--workdir", str(tmp_path / "run"), *flags(TINY), *words]
        )
    line = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "\n" not in line and said in line
    assert not (tmp_path / "run").exists()

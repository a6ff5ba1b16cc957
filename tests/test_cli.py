"""The command line: mistakes are one line, help fits a screen, starting is quick."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from helpers import complaint
from tiny import TINY, flags
from tyro import _errors

from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.cli import main as cli
from jaxhypernas.cli.flags import config_flags, verb_flags
from jaxhypernas.cli.parsing import parse
from jaxhypernas.cli.verbs import VERBS
from jaxhypernas.cli.verbs.base import Configured
from jaxhypernas.cli.verbs.top import Top
from jaxhypernas.config import PRESETS, Config, TrainConfig
from jaxhypernas.config import file as config_file
from jaxhypernas.generators import GENERATORS
from jaxhypernas.types import Plugin, Settings, UserError

MISTAKES = {
    "verb": (["serach"], "verb: 'serach'", "did you mean search?"),
    "flag": (
        ["search", "--train.stepz", "3"],
        "train.stepz:",
        "did you mean --train.steps?",
    ),
    "flag of a simple verb": (
        ["top", "--nunber", "3"],
        "nunber:",
        "did you mean --number?",
    ),
    "flag without its section": (
        ["search", "--steps", "3"],
        "steps:",
        "did you mean --train.steps?",
    ),
    "flag of another generator": (
        ["search", "--generator", "ghn", "--generator.layers", "3"],
        "generator.layers:",
        "--generator ghn",
    ),
    "short flag": (["search", "-x"], "x:", "no flag -x"),
    "word": (["train", "now"], "train: 'now'", "leave it out"),
    "value": (["search", "--train.steps", "many"], "train.steps:", "number"),
    "union": (["train", "--data.limit", "x"], "data.limit:", "or None"),
    "tuple": (
        ["train", "--generator.layers", "a"],
        "generator.layers:",
        "'a'",
    ),
    "two values": (["train", "--seed", "3", "4"], "train: '4'", "leave it"),
    "bool": (["train", "--data.stream", "on"], "train: 'on'", "leave it"),
    "range": (["search", "--train.steps", "0"], "train.steps:", "at least 1"),
    "nested": (["train", "--retrain.train.batch=0"], "retrain.train.batch:"),
    "size": (["search", "--space.max-kernel", "4"], "space.max_kernel:"),
    "seed": (["search", "--seed", "-1"], "seed:", "at least 0"),
    "preset": (["search", "--preset", "big"], "preset: 'big'", "small"),
    "preset without a value": (
        ["search", "--preset", "--seed", "1"],
        "preset:",
    ),
    "space": (
        ["search", "--space", "nasbench202"],
        "space:",
        "did you mean nasbench201?",
    ),
    "generator": (["search", "--generator", "nope"], "generator:", "smash"),
    "strategy": (["search", "--strategy", "nope"], "strategy:", "evolution"),
    "objective": (
        ["search", "--strategy", "nsga2", "--strategy.objective", "size"],
        "strategy.objective: 'size'",
        "params, flops",
    ),
    "surrogate": (
        [
            *("search", "--space", "pnas", "--strategy", "progressive"),
            *("--strategy.surrogate", "forest"),
        ],
        "strategy.surrogate: 'forest'",
        "mlp, lstm",
    ),
    "pareto": (["top", "--pareto", "size"], "pareto: 'size'", "params, flops"),
    "standalone": (
        ["train", "--generator", "standalone"],
        "generator: standalone is not trained beforehand",
    ),
    "empty directory": (["search", "--workdir="], "workdir:", "empty"),
    "empty file": (["rank", "--truth", ""], "truth:", "empty"),
    "missing flag": (["rank"], "truth: it is missing"),
    "dataset": (["search", "--dataset", "no-such-set"], "data.dataset:"),
    "dataset file": (["search", "--dataset", "no-such.npz"], "data.dataset:"),
    "data_dir": (
        ["search", "--dataset", "cifar10", "--data-dir", "no/such/place"],
        "data.data_dir:",
    ),
    "architectures": (
        ["train", "--train.architectures", "3", "--train.batch", "30"],
        "train.batch:",
    ),
    "image": (["search", "--space.stem-stride", "4"], "space"),
    "batch": (["search", "--score.batch", "1"], "score.batch:"),
    "nodes": (
        [
            *("search", "--space", "ghn", "--generator", "shared"),
            *("--space.train-nodes", "2"),
        ],
        "space.train_nodes:",
    ),
    "paths": (
        ["search", "--train.path-dropout", "0.1"],
        "train.path_dropout:",
    ),
    "stream": (["search", "--data.stream"], "data.stream:", "use train"),
    "too few parameters": (
        ["search", "--max-params", "1"],
        "search.max_params: 1 is too few: the smallest",
    ),
    "too few FLOPs": (
        ["search", "--max-flops=2", "--strategy", "evolution"],
        "search.max_flops: 2 is too few: the smallest",
    ),
    "no growth": (
        ["search", "--strategy", "progressive"],
        "memory_bank's do not",
    ),
    "population": (
        ["search", "--strategy", "nsga2", "--strategy.population", "9999"],
        "strategy.population: 9999 must be at most",
    ),
    "limit": (["search", "--max-params", "-3"], "search.max_params:"),
    "plugin": (["top", "--plugin", "no/such.py"], "plugin: no/such.py"),
    "plugin without a value": (["train", "--plugin"], "plugin: a value must"),
    "no run": (["score", "--random", "3"], "workdir:", "begin one"),
    "no scores": (["top"], "workdir:", "has no scores"),
    "no number": (["top", "--number", "0"], "number:", "at least 1"),
    "nothing to score": (["score"], "score: give one of"),
    "two to score": (["score", "--all", "--random", "3"], "score: give one"),
    "seed of a sample": (["score", "--all", "--seed", "-1"], "seed:"),
    "out": (["score", "--all", "--out", "no/such/file"], "out: no/such/file"),
    "no truth": (["rank", "--truth", "no-such.csv"], "truth:", "no-such.csv"),
    "report too early": (["report"], "workdir:"),
}
"""The words of each mistake, how the message begins, and another part of it."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_begins_nothing(
    mistake, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words, *parts = MISTAKES[mistake]
    verb = VERBS.get(words[0])
    has_directory = any("workdir" in word for word in words)
    if verb is not None and not has_directory:
        words = [words[0], "--workdir", "run", *words[1:]]
    line = complaint(words)
    assert all(part in line for part in parts), line
    assert not list(tmp_path.iterdir())


def test_a_failure_of_a_new_kind_is_one_line(monkeypatch):
    """tyro may report more kinds of failures than this version does."""

    def fail(*_, **__):
        event = _errors.ParseErrorEvent(prog="x")
        _errors._parse_error_hook.get()(event)  # type: ignore[misc]

    monkeypatch.setattr("tyro.cli", fail)
    assert "ParseErrorEvent" in complaint(["top", "--workdir", "x"])


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"version": "0.1.0", "seed": 0}']
)
def test_a_configuration_that_cannot_be_used_is_one_line(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    for words in (["search"], ["score", "--random", "3"]):
        line = complaint([*words, "--workdir", str(tmp_path)])
        assert line.startswith("workdir:") and "use a new --workdir" in line


def understood(*words: str) -> Config:
    """The configuration that a command line describes."""
    verb = cli.understand(words)
    assert isinstance(verb, Configured)
    return verb.config


def test_flags_describe_a_configuration(tmp_path):
    directory = ("--workdir", str(tmp_path))
    assert understood("train", *directory) == Config()
    assert understood("train", *directory, *flags()) == TINY
    for name, preset in PRESETS.items():
        assert understood("train", *directory, "--preset", name) == preset


def test_a_begun_run_keeps_its_configuration(tmp_path):
    config_file.save(TINY, tmp_path / "config.json")
    directory = ("--workdir", str(tmp_path))
    assert understood("search", *directory) == TINY
    assert understood("search", *directory, "--space", "memory_bank") == TINY
    assert understood("search", *directory, "--preset", "small") == Config()
    assert understood("search", *directory, "--seed", "5").seed == 5


def test_a_chosen_entry_has_its_own_defaults_and_sizes(tmp_path):
    directory = ("--workdir", str(tmp_path))
    chosen = ("--preset", "ghn-paper", "--space", "nasbench201")
    changed = understood("train", *directory, *chosen, "--space.channels", "9")
    assert changed.space == Nasbench201Config(channels=9)
    assert changed.generator == PRESETS["ghn-paper"].generator


def test_short_names_are_the_long_ones(tmp_path):
    short = "--dataset", "--data-dir", "--max-params", "--max-flops"
    long = (
        *("--data.dataset", "--data.data_dir"),
        *("--search.max-params", "--search.max_flops"),
    )
    for names in (short, long):
        words = [
            f"{name}={value}"
            for name, value in zip(names, "ab12", strict=True)
        ]
        config = understood("train", "--workdir", str(tmp_path), *words)
        assert (config.data.dataset, config.data.data_dir) == ("a", "b")
        assert (config.search.max_params, config.search.max_flops) == (1, 2)


@dataclass(frozen=True)
class PluginConfig(Settings):
    """Sizes of a user's generator."""

    size: int = 3
    """its size"""

    fast: bool = True
    """whether it is fast"""


def test_a_plugin_of_a_user_has_flags(tmp_path, monkeypatch, capsys):
    plugin = Plugin(PluginConfig, lambda *_: None)
    monkeypatch.setitem(GENERATORS, "mine", plugin)
    words = ["train", "--workdir", str(tmp_path), "--generator", "mine"]
    config = understood(*words, "--generator.size", "5", "--generator.no-fast")
    assert config.generator == PluginConfig(5, False)
    assert cli.main([*words, "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--generator.size N" in shown and "its size" in shown
    assert "(off: --generator.no-fast)" in shown
    assert "generator.layers" not in shown


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_screen(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 80
    assert VERBS[verb].example in shown
    for flag in verb_flags(VERBS[verb]):
        name = min(flag.name, flag.alias or flag.name, key=len)
        assert f"  {name}" in shown and flag.doc
    assert cli.main(["help", verb]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("verb", VERBS)
def test_full_help_has_every_flag(verb, capsys):
    words = ["--generator", "ghn", "--help-all"]
    own = verb_flags(VERBS[verb])
    configured = []
    if issubclass(VERBS[verb], Configured):
        chosen = understood("compile", "--topology=x", *words[:2])
        configured = list(config_flags(chosen))
    assert (
        cli.main([verb, *words[-1:], *(words[:2] if configured else ())]) == 0
    )
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for flag in own + configured:
        assert f"  {flag.name}" in shown and flag.doc, flag
    assert "generator.layers" not in shown


BASH = """
source /dev/stdin
COMP_WORDS=(jaxhypernas {words}); COMP_CWORD={index}
_shtab_jaxhypernas jaxhypernas "{last}" "{before}"
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sea"], "search"),
        (["search", "--generator", "gh"], "ghn"),
        (["search", "--retrain.sa"], "--retrain.sample"),
        (["top", "--par"], "--pareto"),
    ],
)
def test_a_shell_completes_verbs_flags_and_choices(words, expected, capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = BASH.format(
        words=" ".join(words),
        index=len(words),
        last=words[-1],
        before=["jaxhypernas", *words][-2],
    )
    done = subprocess.run(
        ["bash", "-c", script],
        input=capsys.readouterr().out,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [expected], done.stderr


@pytest.mark.parametrize("words", [[], ["basch"], ["bash", "zsh"]])
def test_completion_of_an_unknown_shell(words):
    assert "bash, zsh" in complaint(["completion", *words])


def test_help_of_the_program(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        lines = shown.splitlines()
        assert len(lines) <= 25 and max(map(len, lines)) <= 80
        assert all(f"  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_help_are_understood(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *words = VERBS[verb].example.split()
    assert program == "jaxhypernas"
    assert type(cli.understand(words)) is VERBS[verb]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--version"], 0),
        (["search", "--help"], 0),
        (["serach"], 2),
        (["search", "--train.stepz", "3"], 2),
        (["search", "--train.steps", "0"], 2),
        (["rank"], 2),
    ],
)
def test_answers_import_nothing_heavy(words, code, tmp_path):
    program = f"""
import json, sys
from jaxhypernas.cli.main import main
code = main({words!r})
heavy = ["jax", "flax", "matplotlib", "pyarrow", "scipy", "grain", "orbax"]
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""
    workdir = tmp_path / "runs" / "search"
    workdir.mkdir(parents=True)
    config_file.save(TINY, workdir / "config.json")
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == [code, []]


def test_main_leaves_nothing_behind(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    words = ["score", "--workdir", str(tmp_path / "none"), "--random", "3"]
    assert complaint(words).startswith("workdir:")
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert before == after and sys.unraisablehook is hook


def test_a_closed_pipe_ends_quietly():
    ended = subprocess.run(
        f"{sys.executable} -m jaxhypernas search --help-all | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("usage:") and ended.stderr == ""


def test_a_failure_of_the_program_keeps_its_traceback(monkeypatch):
    def broken(_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(VERBS["top"], "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["top", "--workdir", "x"])


def test_unknown_words_are_skipped_only_at_first():
    own = verb_flags(VERBS["top"])
    with pytest.raises(UserError, match="nope"):
        parse("top", own, ["--workdir", "x", "--nope", "3"])
    values = parse("top", own, ["--workdir", "x"])
    assert values["number"] == 20 and str(values["workdir"]) == "x"
    assert TrainConfig().steps == 800


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1000", 1000),
        ("1_000", 1000),
        ("1e3", 1000),
        ("1.5k", 1500),
        ("1M", 10**6),
        ("2G", 2 * 10**9),
    ],
)
def test_whole_numbers_as_people_write_them(text, number):
    flags = verb_flags(Top)
    values = parse("top", flags, ["--workdir", "x", "--max-params", text])
    assert values["max_params"] == number


@pytest.mark.parametrize(
    "text", ["1.5", "1e-3", "k", "", "0x10", "1e99", "nan"]
)
def test_no_whole_numbers(text):
    with pytest.raises(
        UserError, match=r"max_params: .* is not a whole number"
    ):
        parse("top", verb_flags(Top), ["--workdir", "x", "--max-params", text])


def test_home_is_understood_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    values = parse("top", verb_flags(Top), ["--workdir=~/run"])
    assert str(values["workdir"]) == "/home/me/run"

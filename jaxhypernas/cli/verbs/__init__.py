"""The verbs, by name. None of their files imports JAX before a verb runs."""

from jaxhypernas.cli.verbs.base import Verb
from jaxhypernas.cli.verbs.compile import Compile
from jaxhypernas.cli.verbs.export import Export
from jaxhypernas.cli.verbs.pack import Pack
from jaxhypernas.cli.verbs.prepare import Prepare
from jaxhypernas.cli.verbs.rank import Rank
from jaxhypernas.cli.verbs.report import Report
from jaxhypernas.cli.verbs.retrain import Retrain
from jaxhypernas.cli.verbs.score import Score
from jaxhypernas.cli.verbs.search import Search
from jaxhypernas.cli.verbs.top import Top
from jaxhypernas.cli.verbs.train import Train

VERBS: dict[str, type[Verb]] = {
    "search": Search,
    "train": Train,
    "score": Score,
    "top": Top,
    "retrain": Retrain,
    "rank": Rank,
    "report": Report,
    "export": Export,
    "pack": Pack,
    "prepare": Prepare,
    "compile": Compile,
}
"""In the order of the help."""

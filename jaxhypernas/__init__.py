"""Neural architecture search with hypernetworks: a network writes the weights of any architecture, to score it by."""

from jaxhypernas import generators, search, spaces, targets, types
from jaxhypernas.data import dataset as data
from jaxhypernas.execution import candidates as predict
from jaxhypernas.execution import mesh
from jaxhypernas.numerics import stats
from jaxhypernas.programs import scoring as score
from jaxhypernas.programs import training as train
from jaxhypernas.programs import truth as retrain

__all__ = [
    "data",
    "generators",
    "mesh",
    "predict",
    "retrain",
    "score",
    "search",
    "spaces",
    "stats",
    "targets",
    "train",
    "types",
]

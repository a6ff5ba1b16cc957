"""Neural architecture search with hypernetworks: a network writes the weights of any architecture, to score it by."""

from jaxhypernas import data, generators, mesh, predict, retrain, score, search, spaces, stats, targets, train, types

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

"""report.md and its pictures, from the tables of a run."""

import json
from pathlib import Path

import jax
import numpy as np

from jaxhypernas import stats


def write(run, ranking) -> Path:
    pass

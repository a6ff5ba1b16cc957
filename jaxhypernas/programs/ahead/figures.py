"""Memory, work and speed of a run's programs on a TPU slice that is not there."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax

from jaxhypernas.config.config import Config
from jaxhypernas.generators import GENERATORS
from jaxhypernas.programs.ahead import hlo
from jaxhypernas.programs.ahead.chips import Chip, slice_devices
from jaxhypernas.programs.ahead.lowering import Program, lowered
from jaxhypernas.programs.parts import devices_per_candidate
from jaxhypernas.types import UserError

_REMEDY = {
    "train": "--execution.chunk (candidates side by side), --train.batch",
    "score": "--execution.chunk (candidates side by side), --score.batch",
    "retrain": "--retrain.train.batch",
}
"""Flags that a program's memory depends on."""

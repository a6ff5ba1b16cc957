"""FLOPs of products and convolutions, counted as XLA counts them."""

import math
import re

import numpy as np

from jaxhypernas.programs.ahead.hlo_text import (
    Computation,
    Instruction,
    attribute,
    dimensions,
)


def flops(computation: Computation, instruction: Instruction) -> float:
    """Counts the FLOPs of an instruction, 2 per multiply-add.

    Args:
        computation: The computation that it is in.
        instruction: The instruction; 0 unless it is a product or a convolution.
    """
    if instruction.op == "dot":
        return _product(computation, instruction)
    is_convolution = instruction.op == "convolution"
    if is_convolution or "__cudnn$conv" in instruction.attributes:
        return _convolution(computation, instruction)
    return 0.0


def _product(computation: Computation, dot: Instruction) -> float:
    left = dimensions(computation[dot.operands[0]].shape)
    contracted = re.search(
        r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes
    )
    axes: list[int] = []
    if contracted:
        axes = [int(d) for d in contracted[1].split(",") if d]
    inner = math.prod(left[axis] for axis in axes)
    return 2.0 * math.prod(dimensions(dot.shape)) * inner


def _convolution(computation: Computation, conv: Instruction) -> float:
    left, right = (
        dimensions(computation[name].shape) for name in conv.operands[:2]
    )
    out = dimensions(conv.shape)
    # cuDNN's labels are always those of the forward pass.
    if "convBackwardInput" in conv.attributes:
        left, out = out, left
    if "convBackwardFilter" in conv.attributes:
        right, out = out, right

    labels = attribute(r"dim_labels=([^\s,]+)", conv)
    of_left, of_right, of_out = re.split(r"_|->", labels)
    groups = re.search(r"batch_group_count=(\d+)", conv.attributes)
    batch = left[of_left.index("b")] / (int(groups[1]) if groups else 1)

    # The kernel's inputs are those of one feature group.
    count = 2.0 * batch
    count *= right[of_right.index("i")] * out[of_out.index("f")]
    window = _window(conv)
    for axis in range(len(out) - 2):
        label = str(axis)
        count *= _positions(
            left[of_left.index(label)],
            right[of_right.index(label)],
            out[of_out.index(label)],
            {name: values[axis] for name, values in window.items()},
        )
    return count


def _window(conv: Instruction) -> dict[str, list[str]]:
    """The window of a convolution: for each property its values along the axes."""
    found = re.search(r"window=\{([^}]*)\}", conv.attributes)
    if found is None:
        return {}
    pairs = re.findall(r"(\w+)=([\dx_-]+)", found[1])
    return {name: value.split("x") for name, value in pairs}


def _positions(
    size: int, kernel: int, out: int, window: dict[str, str]
) -> int:
    """Pairs of output and kernel positions along an axis that meet a pixel.

    The others meet padding, or a zero that dilation puts between pixels.
    """
    stride = int(window.get("stride", 1))
    dilation = int(window.get("rhs_dilate", 1))
    spread = int(window.get("lhs_dilate", 1))
    padding = int(window.get("pad", "0_0").split("_")[0])
    out_at = np.arange(out)[:, None] * stride
    kernel_at = np.arange(kernel)[None] * dilation
    at = out_at + kernel_at - padding
    within = (at >= 0) & (at <= (size - 1) * spread)
    return int((within & (at % spread == 0)).sum())

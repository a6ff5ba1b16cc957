"""The texts of an exported network: its source, how to use it, its card."""

from typing import Any, NamedTuple

import numpy as np

from jaxhypernas.config.config import Config
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.families import FAMILIES

_HEAD = '''"""{arch}

A network found by jaxhypernas, in Flax NNX. It needs Flax alone::

    network = load("weights.safetensors")
    logits_BxL = network(preprocess(images_BxHxWxC))
"""

import json
from pathlib import Path

import numpy as np

IMAGE = {image}
"""Height, width and channels of an image."""

CLASSES = {classes}
"""Names of the classes."""

LOW, HIGH = {low}, {high}
"""Range of the pixels that `preprocess` takes."""

MEAN = np.array({mean}, np.float32)
STD = np.array({std}, np.float32)
"""Mean and deviation of each channel of the training images."""

'''

_TAIL = '''

def preprocess(images: np.ndarray) -> jax.Array:
    """Normalises images BxHxWxC with pixels in LOW .. HIGH."""
    return (jnp.asarray(images, jnp.float32) - MEAN) / STD


def load(path: str | Path) -> Network:
    """Returns the network with the weights of a safetensors file."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    network = Network(rngs=nnx.Rngs(0))
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    for place, variable in nnx.to_flat_state(state):
        entry = entries[".".join(map(str, place))]
        first, end = (start + offset for offset in entry["data_offsets"])
        numbers = np.frombuffer(data[first:end], np.float32)
        variable[...] = jnp.asarray(numbers.reshape(entry["shape"]))
    nnx.update(network, state)
    network.eval()
    return network
'''

PREDICT = '''"""Classifies an image file: python predict.py IMAGE"""

import sys
from pathlib import Path

import network
import numpy as np
from PIL import Image

height, width, channels = network.IMAGE
mode = "L" if channels == 1 else "RGB"
image = Image.open(sys.argv[1]).convert(mode).resize((width, height))
pixels = np.asarray(image, np.float32).reshape(1, height, width, channels)
pixels = network.LOW + pixels / 255 * (network.HIGH - network.LOW)
model = network.load(Path(__file__).with_name("weights.safetensors"))
logits = np.asarray(model(network.preprocess(pixels))[0])
share = np.exp(logits - logits.max())
for k in logits.argsort()[::-1][:5]:
    print(f"{share[k] / share.sum():7.2%}  {network.CLASSES[k]}")
'''
"""A program that classifies an image file."""


class Accuracies(NamedTuple):
    """Accuracy of an exported network on test images."""

    running: float
    """With the running statistics that the network has."""

    by_batch: float
    """With the statistics of each batch, as in scores and in the report."""

    images: int
    """Number of images."""


def network_text(arch: str, dataset: Dataset, source: str) -> str:
    """Returns the whole source of an exported network.

    Args:
        arch: The architecture's string.
        dataset: The images.
        source: The network's layers and classes.
    """
    low, high = pixel_range(dataset)
    head = _HEAD.format(
        arch=arch,
        image=dataset.image,
        classes=_names(dataset),
        low=low,
        high=high,
        mean=[float(x) for x in dataset.mean_C],
        std=[float(x) for x in dataset.std_C],
    )
    return f"{head}{source.rstrip()}\n{_TAIL}"


def pixel_range(dataset: Dataset) -> tuple[float, float]:
    """Returns the lowest and the highest value of a pixel.

    Args:
        dataset: The images.
    """
    x_NxHxWxC = dataset.valid.x_NxHxWxC
    if x_NxHxWxC.dtype == np.uint8 and x_NxHxWxC.max() > 16:
        return 0.0, 255.0
    return float(x_NxHxWxC.min()), float(x_NxHxWxC.max())


def _names(dataset: Dataset) -> tuple[str, ...]:
    names = dataset.class_names or map(str, range(dataset.classes))
    return tuple(names)


def card(
    config: Config,
    version: str,
    dataset: Dataset,
    chosen: Any,
    accuracies: Accuracies,
    counts: dict[str, int],
    size: int,
    drawing: str,
) -> str:
    """Returns the card of an exported network.

    Args:
        config: The configuration of the run.
        version: The version of the package.
        dataset: The images.
        chosen: The architecture, as `chosen.Chosen`.
        accuracies: What was measured on test images.
        counts: Its counts, as in `types.Cost`.
        size: Numbers in its weights.
        drawing: The architecture, as `drawing.mermaid` draws it.
    """
    low, high = _interval(accuracies.running, accuracies.images)
    train = config.retrain.train
    names = config.names
    height, width, channels = dataset.image
    lowest, highest = pixel_range(dataset)
    reported = ""
    if chosen.row:
        accuracy = chosen.row["test_accuracy"]
        reported = f"| as reported, when trained | {accuracy:.4f} |\n"
    return f"""# A network for {dataset.name}

```
{chosen.arch}
```

```mermaid
{drawing}
```

{FAMILIES[names["space"]].grammar}

| test accuracy on {accuracies.images:,} images | |
|---|---|
| with running statistics, as this network works | {accuracies.running:.4f} \
[{low:.4f}, {high:.4f}] |
| with the statistics of each batch, as candidates are compared | \
{accuracies.by_batch:.4f} |
{reported}
The interval is Wilson's, of 95 %.

- Weights: {chosen.origin}; {size:,} numbers of {counts["params"]:,} that the \
architecture has, {counts["live_flops"]:,} multiply-adds for an image.
- Images: {height}x{width}x{channels}, pixels {lowest:g} to {highest:g}; \
{dataset.classes} classes; trained on {dataset.source.size:,} images of {dataset.name}.
- BatchNorm's statistics: means over up to 64 batches of {config.score.batch} training \
images.
- Training: {train.steps} steps of {train.batch} images, \
{train.optimizer}, learning rate {train.learning_rate} along a cosine, \
weight decay {train.weight_decay}; augmentation: crops with {config.data.pad} pixels \
of padding, \
{"flips" if config.data.flip else "no flips"}.
- Found by: space {names["space"]}, generator {names["generator"]}, strategy \
{names["strategy"]}, seed {config.seed}, jaxhypernas {version}.

`python predict.py IMAGE` classifies a file (pillow). `network.py` needs Flax alone.
`network.stablehlo` has preprocessing inside and takes any number of images:
`jax.export.deserialize(data).call(images)`.
"""


def _interval(
    share: float, number: int, z: float = 1.96
) -> tuple[float, float]:
    """Wilson's interval of a share."""
    centre = share + z**2 / (2 * number)
    spread = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    scale = 1 + z**2 / number
    return (centre - spread) / scale, (centre + spread) / scale

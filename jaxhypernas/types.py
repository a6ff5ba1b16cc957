"""Contracts and names that every other file shares. Quick to load: no JAX.

Array names carry their axes, as in ``x_BxHxWxC``:

======  ==========================================================
A       candidates of a population
B       images of a batch; T batches; N images of a set
H W C   height, width and channels of images and activations
K L     height and width of a kernel; I inputs, O outputs
N       nodes of a graph or op nodes of a cell
V       vertices: a cell's inputs, op nodes and output
S       states of a cell, or positions of SMASH's grid
P M     op slots and memory banks of a block
O       ops of a space
D       hidden units; G rows of SMASH's grid
======  ==========================================================

A plug-in is a ``NamedTuple`` of functions. Each function is written for ONE
architecture; batching happens once, in ``execution``.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import jax

Array: TypeAlias = "jax.Array | np.ndarray"
"""Device code takes and returns ``jax.Array``; code that also runs on the host,
over whole populations, says ``Array``."""

Arch: TypeAlias = Any
"""One candidate: a pytree of int32 arrays of static shape. A population is the
same pytree with one more leading axis, A."""

Params: TypeAlias = Any
"""A generator's parameters phi, or generated weights theta: a pytree of float
arrays."""

WeightSpec: TypeAlias = Any
"""A pytree of ``jax.ShapeDtypeStruct``: the largest weights of a target. It is the
only bond between targets and generators."""

ImageShape: TypeAlias = tuple[int, int, int]
"""Height, width and channels of an image."""


class UserError(ValueError):
    """The user gave something wrong.

    The message is one line that names the field and the fix.
    """


class Settings:
    """Base class of a component's configuration: a frozen dataclass.

    Values are plain: int, float, bool, str, ``Literal``, tuples of these, or other
    ``Settings``. `config.Config` checks the whole tree when it is made.
    """

    def check(self) -> None:
        """Checks the values of the component's own fields.

        Raises:
            UserError: The message begins with the field's own name, as in
                ``"steps: 0 must be at least 1"``; whoever holds the component puts
                its place in front.
        """


def field_docs(owner: type) -> dict[str, str]:
    """Returns the text below each field of a class, by field.

    Args:
        owner: A NamedTuple or dataclass; fields of its ancestors count. Without its
            source there are no texts.
    """
    docs = {}
    for ancestor in reversed(owner.__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(ancestor))
        except (OSError, TypeError):
            continue
        body = getattr(ast.parse(source).body[0], "body", [])
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                doc = inspect.cleandoc(ast.literal_eval(text.value))
                docs[ast.unparse(field.target)] = doc
    return docs


def _documented(contract: type) -> type:
    """Puts the text below each field of a NamedTuple where ``help`` finds it."""
    for name, doc in field_docs(contract).items():
        getattr(contract, name).__doc__ = doc
    return contract


@_documented
class Graph(NamedTuple):
    """A padded directed acyclic graph, its nodes in topological order."""

    op_NxO: "jax.Array"
    """int32: 1 where the node applies the op (or is of that kind), 0 for padding."""

    edge_NxN: "jax.Array"
    """int32: ``edge[i, j]`` is 1 where node j feeds node i; lower triangular."""

    mask_N: "jax.Array"
    """int32: 1 for real nodes, 0 for padding."""


@_documented
class Cost(NamedTuple):
    """Exact counts, int64: of weights, and of multiply-adds for one image.

    Multiply-adds are those of convolutions and linear layers.
    """

    params: np.ndarray
    """All weights of the network."""

    flops: np.ndarray
    """All multiply-adds."""

    live_params: np.ndarray
    """Weights that lie on a path from input to output."""

    live_flops: np.ndarray
    """Multiply-adds that lie on a path from input to output."""

    live_cell_flops: np.ndarray
    """Those of them that are of cells, or of the ops of blocks: not of stem,
    reductions, transitions and the last layer."""


@_documented
class Scores(NamedTuple):
    """Scores of candidates."""

    loss: Array
    """Mean validation cross-entropy, in nats."""

    accuracy: Array
    """Share of validation images classified correctly."""


@_documented
class Growth(NamedTuple):
    """How the architectures of a space grow block by block. NumPy, on the host."""

    levels: int
    """Number of blocks of a complete architecture."""

    children: Callable[[Arch | None, int], Arch]
    """``children(parents, level)``: all architectures of ``level`` blocks that extend
    the parents of ``level - 1`` blocks; ``None`` as the parents of level 1."""

    tokens: Callable[[Arch, int], np.ndarray]
    """``tokens(population, level)``: int32 [A, level, F], F fields for each block."""

    vocabulary: tuple[int, ...]
    """Number of values of each of the F fields."""

    kinds: tuple[int, ...]
    """Kind of each field; fields of one kind share an embedding."""


@_documented
class Enumeration(NamedTuple):
    """All architectures of a space, in an order. NumPy, on the host."""

    size: int
    """Number of architectures."""

    at: Callable[[np.ndarray], Arch]
    """``at(index_A)``: the population at these indices, int64 in 0 .. size - 1."""


@_documented
class Encoding(NamedTuple):
    """An architecture and its generated weights on one grid of G rows, S positions.

    SMASH's hypernetwork maps the grid of the architecture to the grid of weights.
    """

    channels: int
    """Channels of the encoded architecture."""

    weights: int
    """Weights generated at each place of the grid."""

    generated: tuple[str, ...]
    """Names of the entries of theta that ``decode`` gives."""

    encode: Callable[[Arch], "jax.Array"]
    """``encode(arch)``: c_GxSxC of -1 and +1."""

    decode: Callable[["jax.Array", Arch], Params]
    """``decode(w_GxSxW, arch)``: the generated entries of theta, a dict."""


@_documented
class Space(NamedTuple):
    """A search space.

    ``sample``, ``mutate``, ``canonical``, ``graph`` and ``paths`` are traceable; the
    other functions run on the host.
    """

    name: str
    """Name of the space in messages."""

    sample: Callable[["jax.Array", "jax.Array | float"], Arch]
    """``sample(key, progress)``: a random architecture; ``progress`` is how far
    training has come, 0 to 1, for spaces that begin with small ones."""

    mutate: Callable[["jax.Array", Arch], Arch]
    """``mutate(key, arch)``: a valid neighbour."""

    canonical: Callable[[Arch], Arch]
    """``canonical(arch)``: the representative of all isomorphic architectures."""

    graph: Callable[[Arch], Graph]
    """``graph(arch)``: the architecture as a padded graph."""

    cost: Callable[[Arch], Cost]
    """``cost(arch)``: exact counts in NumPy, with any leading axes. (JAX's default 32
    bits cannot hold them.)"""

    depth: Callable[[Arch], np.ndarray]
    """``depth(arch)``: ops of the shortest path through a cell, or through a block,
    float64 in NumPy, with any leading axes; copies count 0, no path is infinite."""

    to_string: Callable[[Arch], str]
    """``to_string(arch)``: the architecture as text."""

    from_string: Callable[[str], Arch]
    """``from_string(text)``: the architecture; raises `UserError`."""

    log10_size: float
    """log10 of the number of architectures, or of an upper bound where the docstring
    of the space says so."""

    growth: Growth | None = None
    """How architectures grow; None where they do not."""

    paths: Callable[["jax.Array", "jax.Array"], Arch] | None = None
    """``paths(key, rate)``: the one-shot network with all paths on, each of the k
    paths into an op dropped with probability ``rate ** (1 / k)``; None where the space
    has no such network."""

    all: Enumeration | None = None
    """All architectures; None where they are too many or have no simple order."""

    encoding: Encoding | None = None
    """The space's own encoding for SMASH's hypernetwork; None: its graph is encoded."""

    op_names: tuple[str, ...] = ()
    """Names of the columns of `Graph.op_NxO`, for drawings. The first column marks
    inputs."""


@_documented
class Module(NamedTuple):
    """The network of one architecture, which needs Flax alone."""

    source: str
    """Python: a class ``Network`` of Flax NNX, and its parts, after the code of
    `targets.modules.layers`."""

    weights: dict[str, np.ndarray]
    """Its weights, by their places in the module, as in ``stem.conv.kernel``."""


@_documented
class Target(NamedTuple):
    """A family of networks, one for each architecture of a space."""

    weight_spec: WeightSpec
    """The largest weights that an architecture can have."""

    apply: Callable[[Params, Arch, "jax.Array"], "jax.Array"]
    """``apply(theta, arch, x_BxHxWxC)``: logits_BxL."""

    nodes: Any
    """For each leaf of ``weight_spec`` an int array over its leading axes: the graph
    node that owns each slice. Nodes are numbered consecutively over all stacked cells.
    Shape () for weights that belong to no node."""

    relaxed: Callable[[Params, Arch, "jax.Array"], "jax.Array"] | None = None
    """Like ``apply``, for architectures that `Space.paths` gives."""

    forms: Mapping[str, "Target"] = MappingProxyType({})
    """The same networks computed in other ways, equal to rounding, by name;
    `execution.choose` picks one."""

    module: Callable[[Arch, Params], Module] | None = None
    """``module(arch, theta)``: the network of an architecture, to export; arrays are
    NumPy's. None: its networks cannot be exported."""

    features: Callable[[Params, Arch, "jax.Array"], "jax.Array"] | None = None
    """``features(theta, arch, x_BxHxWxC)``: the rectified activations before the last
    layer, BxHxWxC. None: its networks have none, and no separability."""


@_documented
class Generator(NamedTuple):
    """A map from architectures to weights."""

    init: Callable[["jax.Array"], Params]
    """``init(key)``: the generator's parameters phi."""

    generate: Callable[[Params, Arch], Params]
    """``generate(phi, arch)``: theta, shaped like the target's ``weight_spec``. Axes
    that count nodes may have size 1 where all nodes share a weight."""

    decay: Callable[[Params], Any]
    """``decay(phi)``: a pytree of bool: True for leaves that decay applies to."""

    trained: bool = True
    """Whether phi is trained before candidates are scored; if not, each candidate is
    trained from scratch to be scored."""


@_documented
class Strategy(NamedTuple):
    """A search.

    It sees architectures and what it minimises only, negative scores or losses, so a
    table replays it.
    """

    total: int
    """Largest number of candidates that it asks for."""

    init: Callable[["jax.Array"], Any]
    """``init(key)``: the state before the search."""

    ask: Callable[[Any], Arch | None]
    """``ask(state)``: a population to score next, or None when the search is done."""

    tell: Callable[[Any, Arch, np.ndarray], Any]
    """``tell(state, population, loss_A)``: the state after the population is scored;
    the lowest ``loss_A`` is best."""

    at_once: Mapping[str, int] = MappingProxyType({})
    """Numbers of candidates in memory at once, by the field that sets each; a number
    that does not fit this machine is refused before the search begins."""

    rounds: int = 1
    """Largest number of populations that it asks for: each waits for the one before."""


@_documented
class Family(NamedTuple):
    """An entry of `families.FAMILIES`: a space, its target and their sizes."""

    config: type[Settings]
    """Type of the family's configuration: its sizes, with defaults. Each family has a
    type of its own."""

    build: Callable[[Any, ImageShape, int], tuple[Space, Target]]
    """``build(config, image, classes)``: the space and its target."""

    train_config: Callable[[Any], Any] = lambda config: config
    """``train_config(config)``: sizes of the networks that the generator is trained
    on, where they differ from those that are searched."""

    grammar: str = ""
    """How to read the strings of its architectures, in a sentence or two; shown beside
    them."""


@_documented
class Plugin(NamedTuple):
    """An entry of `generators.GENERATORS` or `search.STRATEGIES`."""

    config: type[Settings]
    """Type of the plug-in's configuration, with defaults. Each plug-in has a type of
    its own."""

    build: Callable[..., Any]
    """``build(config, space, target) -> Generator``, or
    ``build(config, space, limits) -> Strategy``."""

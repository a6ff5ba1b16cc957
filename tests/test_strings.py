"""Architectures as other programs print them; what goes out is one form."""

import jax
import numpy as np
import pytest

from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.families import FAMILIES
from jaxhypernas.spaces.nasbench201 import nasbench201
from jaxhypernas.types import UserError

OFFICIAL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+"
    "|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)

SAME_201 = {
    "quoted": f'"{OFFICIAL}"',
    "a mark of bytes": "\ufeff" + OFFICIAL,
    "spaces": f" \u00a0{OFFICIAL.replace('+', ' + ')}\r\n",
    "edges in another order": "|nor_conv_3x3~0|+|avg_pool_3x3~1|nor_conv_3x3~0|+"
    "|skip_connect~2|skip_connect~0|nor_conv_3x3~1|",
    "AutoDL": "[[('nor_conv_3x3', 0)], [('nor_conv_3x3', 0), ('avg_pool_3x3', 1)],"
    " [('skip_connect', 0), ('nor_conv_3x3', 1), ('skip_connect', 2)]]",
    "AutoDL's tuples": "((('nor_conv_3x3', 0),), (('nor_conv_3x3', 0),"
    " ('avg_pool_3x3', 1)), (('skip_connect', 0), ('nor_conv_3x3', 1),"
    " ('skip_connect', 2)))",
    "NNI": '{"0_1": "conv_3x3", "0_2": "conv_3x3", "1_2": "avg_pool_3x3",'
    ' "0_3": "skip_connect", "1_3": "conv_3x3", "2_3": "skip_connect"}',
    # Edges (1,2) (1,3) (1,4) (2,3) (2,4) (3,4) of states 1 to 4.
    "NASLib": "(2, 2, 0, 4, 2, 0)",
    "NASLib's list": "[2, 2, 0, 4, 2, 0]",
    "NumPy's print": "[2 2 0 4 2 0]",
}

# Published in the file that made the benchmark, and by its readers.
INDICES = {
    0: "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+"
    "|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    9: "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    123: "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+"
    "|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
}

WRONG_201 = {
    "": "is not |op~0|",
    "15625": "no index of NATS-Bench",
    "9" * 500: "no index",
    "(1, 2, 3)": "is not |op~0|",
    "(1, 2, 3, 4, 5, 6)": "is not |op~0|",
    "(-1, 2, 3, 4, 1, 1)": "is not |op~0|",
    "|none~0|": "is not |op~0|",
    "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|": "is not |op~0|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~3|": "is not |op~0|",
    "|foo~0|+|none~0|none~1|+|none~0|none~1|none~2|": "'foo' is not one of none",
    "{'0_1': 3}": "is not |op~0|",
    "__import__('os').getcwd()": "is not |op~0|",
    "[" * 5000: "is not |op~0|",
    "x" * 20_000: "has 20,000 characters",
}


def told(space, text):
    with pytest.raises(UserError) as error:
        space.from_string(text)
    line = str(error.value)
    assert line.startswith("arch: ") and "\n" not in line and len(line) < 400
    return line


@pytest.fixture(scope="module")
def cells_201():
    return nasbench201(Nasbench201Config(), (32, 32, 3), 10)


@pytest.mark.parametrize("form", SAME_201)
def test_nasbench201(cells_201, form):
    arch = cells_201.from_string(SAME_201[form])
    assert cells_201.to_string(arch) == OFFICIAL


@pytest.mark.parametrize("index", INDICES)
def test_index_of_nats_bench(cells_201, index):
    arch = cells_201.from_string(str(index))
    assert cells_201.to_string(arch) == INDICES[index]


def test_every_cell_has_an_index(cells_201):
    texts = {
        cells_201.to_string(cells_201.from_string(str(i)))
        for i in range(0, 15_625, 25)
    }
    assert len(texts) == 625


@pytest.mark.parametrize("text", WRONG_201, ids=lambda text: text[:12])
def test_no_cell_of_nasbench201(cells_201, text):
    assert WRONG_201[text] in told(cells_201, text)


DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    " ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1),"
    " ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],"
    " normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0),"
    " ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)

# State 0 is the cell before: 1 in DARTS.
DARTS_V2_HERE = (
    "sep_conv_3x3(1);sep_conv_3x3(0);sep_conv_3x3(1);sep_conv_3x3(0);"
    "sep_conv_3x3(0);skip_connect(1);skip_connect(1);dil_conv_3x3(2);-;-"
)

SAME_PNAS = {
    "Genotype": DARTS_V2,
    "dictionary": "{'normal': [('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    " ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1),"
    " ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)]}",
    "spaces": DARTS_V2_HERE.replace(";", " ; ").replace("(", "( "),
    "quoted": f"'{DARTS_V2_HERE}'\n",
}

WRONG_DAG = {
    "pnas": {
        "-;-;sep_conv_3x3(2);skip_connect(2);-;-;-;-;-;-": "node 2 reads state 2",
        ";".join(["-"] * 10): "no node",
        "Genotype(normal=[('dil_conv_5x5', 0), ('none', 1)])": "'dil_conv_5x5'",
        "Genotype(normal=[('skip_connect', 0)])": "is not Genotype",
        "Genotype(normal=range(9))": "is not Genotype",
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 5)])": "reads '5'",
        f"Genotype(normal={[('skip_connect', 0)] * 12})": "12 ops",
    },
    "ghn": {"-;nor_conv_3x3(2)": "", "": "nodes"},
    "one_shot": {"": "nodes"},
}


def space_of(name):
    return FAMILIES[name].build(FAMILIES[name].config(), (32, 32, 3), 10)[0]


@pytest.mark.parametrize("form", SAME_PNAS)
def test_pnas(form):
    space = space_of("pnas")
    arch = space.from_string(SAME_PNAS[form])
    assert space.to_string(arch) == DARTS_V2_HERE


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name, texts in WRONG_DAG.items() for text in texts],
)
def test_no_cell_of_blocks(name, text):
    assert WRONG_DAG[name][text] in told(space_of(name), text)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_goes_out_comes_in(name):
    space = space_of(name)
    keys = jax.random.split(jax.random.key(0), 20)
    for key in keys:
        arch = jax.jit(space.canonical)(space.sample(key, 1.0))
        text = space.to_string(jax.tree.map(np.asarray, arch))
        for form in (text, f' "{text}"\n', "\ufeff" + text):
            again = space.from_string(form)
            assert space.to_string(again) == text


CELL_101 = "input conv3x3-bn-relu maxpool3x3 output|0-1 0-2 1-3 2-3"
OPS_101 = '["input", "conv3x3-bn-relu", "maxpool3x3", "output"]'
MATRIX_101 = "[[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]"

SAME_101 = {
    "matrix and ops": f"{MATRIX_101},{OPS_101}",
    "ops and matrix": f"({OPS_101}, {MATRIX_101})",
    "ModelSpec": f"ModelSpec(matrix={MATRIX_101}, ops={OPS_101})",
    "dictionary": f'{{"module_adjacency": {MATRIX_101},'
    f' "module_operations": {OPS_101}}}',
    "NumPy's print": f"{MATRIX_101.replace(',', '')}, {OPS_101}",
    "lists": f"{OPS_101}|[(0, 1), (0, 2), (1, 3), (2, 3)]",
    "list of ops": f"{OPS_101}|0-1 0-2 1-3 2-3",
    "short names": CELL_101.replace("-bn-relu", ""),
    "quoted": f'" {CELL_101}"\n',
}

WRONG_101 = {
    "input conv3x3-bn-relu output": "is not 'input OP",
    "da66ce1c72f2ee51fd6be96a62a12f4a": "hash of a cell",
    "[[0, 1], [0, 0]]": "is not 'input OP",
    '[[0, 1], [0, 0]], ["input", "conv3x3", "output"]': "is not 'input OP",
    '[[0, 1], [1, 0]], ["input", "output"]': "edge '1-0'",
    '["input", "output"]|[1, 2]': "edge '?'",
    "[[]]|[[]]": "is not 'input OP",
}


@pytest.mark.parametrize("form", SAME_101)
def test_nasbench101(form):
    space = space_of("nasbench101")
    assert space.to_string(space.from_string(SAME_101[form])) == CELL_101


@pytest.mark.parametrize("text", WRONG_101, ids=lambda text: text[:12])
def test_no_cell_of_nasbench101(text):
    assert WRONG_101[text] in told(space_of("nasbench101"), text)

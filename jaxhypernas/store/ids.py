"""Ids of candidates: uint64 here, 16 hexadecimal digits in Parquet."""

import numpy as np


def ids_from_text(text_A: list[str]) -> np.ndarray:
    """Converts the hexadecimal digits that Parquet has to ids, uint64 [A].

    Args:
        text_A: 16 hexadecimal digits each.
    """
    data = bytes.fromhex("".join(text_A))
    return np.frombuffer(data, ">u8").astype(np.uint64)


def ids_to_text(id_A: np.ndarray) -> list[str]:
    """Converts ids to the 16 hexadecimal digits that Parquet has.

    Args:
        id_A: uint64 ids.
    """
    return [f"{value:016x}" for value in id_A.tolist()]

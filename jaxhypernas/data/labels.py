"""Labels as people save them, as one integer per image."""

import numpy as np


def to_integers(y: np.ndarray) -> np.ndarray:
    """Returns labels [N] of integers where it is clear which; others unchanged.

    Args:
        y: Labels: integers or booleans [N] or [N, 1], or one-hot rows [N, K] of any
            numbers.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and _is_one_hot(y):
        return y.argmax(1)
    if y.dtype == bool:
        return y.astype(np.int32)
    return y


def _is_one_hot(y_NxK: np.ndarray) -> bool:
    is_number = np.issubdtype(y_NxK.dtype, np.number) or y_NxK.dtype == bool
    if not is_number or not len(y_NxK):
        return False
    ones_NxK = y_NxK == 1
    zeros_NxK = y_NxK == 0
    has_one = (ones_NxK.sum(1) == 1).all()
    return bool(has_one and (ones_NxK | zeros_NxK).all())

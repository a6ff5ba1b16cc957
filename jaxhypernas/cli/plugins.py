"""Loads plug-ins: files or modules that add entries to the registries."""

import importlib
import importlib.util
import sys
from pathlib import Path

from jaxhypernas.types import UserError


def load(name: str) -> None:
    """Imports a plug-in.

    Args:
        name: The path of a Python file, as in ``mine/residual.py``, or the name of an
            installed module.

    Raises:
        UserError: The plug-in is not there, or raises an exception when it is
            imported.
    """
    path = Path(name).expanduser()
    try:
        if path.suffix == ".py":
            _import_file(path)
        else:
            importlib.import_module(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"plugin: {name} cannot be imported ({reason})"
        ) from None


def _import_file(path: Path) -> None:
    name = f"jaxhypernas_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)

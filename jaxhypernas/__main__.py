"""``python -m jaxhypernas`` is the command line."""

from jaxhypernas.cli import run

run()

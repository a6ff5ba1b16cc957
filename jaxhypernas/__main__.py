"""``jaxhypernas``, and ``python -m jaxhypernas``: the command line as a program."""

from jaxhypernas.cli.program import run

if __name__ == "__main__":
    run()

"""``jaxhypernas``, and ``python -m jaxhypernas``: the command line as a program."""

from jaxhypernas.cli.startup import run_program as run

if __name__ == "__main__":
    run()

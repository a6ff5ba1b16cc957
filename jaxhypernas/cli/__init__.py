"""The command line: ``jaxhypernas VERB --workdir W``."""

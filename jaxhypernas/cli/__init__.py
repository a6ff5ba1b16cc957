"""The command line: ``jaxhypernas VERB``.

``main`` parses and runs a verb; each verb is a dataclass in ``verbs``.
"""

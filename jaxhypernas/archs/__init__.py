"""Architectures as integer arrays, and the sizes of their networks.

Spaces, targets and generators never import each other; they share these files.
"""

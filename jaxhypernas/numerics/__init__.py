"""Layers of target networks as pure functions, and rank statistics."""

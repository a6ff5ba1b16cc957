"""Networks of one architecture as readable Flax NNX modules, which need Flax alone."""

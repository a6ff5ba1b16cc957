"""Files of a work directory: checkpoints, tables and the score table."""

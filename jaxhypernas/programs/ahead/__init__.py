"""Programs of a run compiled for a TPU slice that is not there; what they would do."""

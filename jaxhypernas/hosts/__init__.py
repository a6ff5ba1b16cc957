"""Several processes, on one host or more: who is there, shares, stopping."""

"""What a run computes: its parts, training, scoring, training from scratch."""

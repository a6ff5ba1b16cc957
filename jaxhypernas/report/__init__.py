"""What a person sees of a run: progress bars, rankings, the report and its pictures."""

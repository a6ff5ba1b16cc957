"""What a person sees: progress bars, rankings, the report and its pictures."""

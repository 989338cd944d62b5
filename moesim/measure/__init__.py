"""What a run's traces say: critical rank, bound, summary, tables, and the terms of every number."""

"""The exact engine: every change of every rate, found from the links that feel it."""

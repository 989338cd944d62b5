"""Very many ranks: flows per port of a rank instead of per pair of ranks."""

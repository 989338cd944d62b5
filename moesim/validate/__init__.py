"""Published measurements against simulated ones, and the constants that follow from them."""

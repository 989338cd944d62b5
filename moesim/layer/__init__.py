"""A run before its clock: tokens, where each layer's routing sends them, what that asks of the cluster."""

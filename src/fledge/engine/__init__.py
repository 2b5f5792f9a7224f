"""The fast path: a causal model's body as a few values, run forward and backward without a graph."""

"""The model, without a network: weights, stages, caches, the executor, the client ends."""

"""Tensor-level tools of the reference host. Knows torch; knows nothing of networks, losses or training."""

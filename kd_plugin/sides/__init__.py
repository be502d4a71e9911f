"""The two sides of a step: the terms of D, the terms of G, and how they reach the host's backward pass."""

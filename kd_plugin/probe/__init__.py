"""Measure what a discriminator can learn from a teacher about a set of images."""

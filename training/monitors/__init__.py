"""Measurements taken during a run."""

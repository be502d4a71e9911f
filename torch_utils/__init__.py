"""Tensor-level tools of the trainer: operators, processes, statistics. Nothing here knows networks or losses."""

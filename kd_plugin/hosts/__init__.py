"""Distillation in official StyleGAN checkouts, none of whose files is touched: `python -m kd_plugin.hosts --help`."""

"""The texts that images are compared with."""

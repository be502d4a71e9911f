"""The operators StyleGAN2 is made of, a module for each, with a readable torch reference that is its specification.

Modules and functions have the official names: `from torch_utils.ops import upfirdn2d; upfirdn2d.upfirdn2d(x, f)`.
"""

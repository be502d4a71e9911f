"""The operators of StyleGAN2, one module each, with a torch reference as the specification.

Modules and functions have the official names: `from torch_utils.ops import upfirdn2d; upfirdn2d.upfirdn2d(x, f)`.
"""

"""A StyleGAN2-ADA-style trainer around the plug-in."""

"""Training images: reading, labels, sampling."""

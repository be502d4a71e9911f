"""The runs behind the published numbers, and the training of what this repository ships."""

"""What generate.py makes of a network: images, mixtures, paths between seeds, projections, and a page to play with."""

"""The reports of a run: log, chart, image grids."""

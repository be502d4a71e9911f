"""What a run writes for people: log, chart, image grids."""

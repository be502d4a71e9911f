"""Networks of official checkouts: reading their pickles without running them, and writing pickles that they read."""

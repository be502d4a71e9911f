"""One self-contained HTML page on one or several runs: what was trained, whether it overfits, and how it looks."""

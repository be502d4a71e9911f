"""What the host's programs share that needs no torch: files, text, the error of a user's mistake."""

"""Helpers of the scripts that need no torch: files, text, command lines, errors."""

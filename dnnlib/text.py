"""Durations and sizes as text."""

from __future__ import annotations

__all__ = ["format_seconds", "format_size"]


def format_seconds(seconds: float) -> str:
    """`"7s"`, `"2m 03s"`, `"1h 02m 03s"`, `"2d 01h 02m"`: rounded to a second, at most three units."""
    total = round(seconds)
    minutes, s = divmod(total, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h {m:02d}m"
    if hours:
        return f"{h}h {m:02d}m {s:02d}s"
    if minutes:
        return f"{m}m {s:02d}s"
    return f"{s}s"


def format_size(num_bytes: int) -> str:
    """`"312 B"`, `"1.4 MB"`, `"2.0 GB"`: powers of 1000, as disks and download pages count."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95 or unit == "GB":
            break
        size /= 1000
    return f"{num_bytes} B" if unit == "B" else f"{size:.1f} {unit}"

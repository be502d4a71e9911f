"""Reads damaged official pickles for some minutes and reports: `python -m tests.official.fuzz --minutes=10`.

Each is a small good file, PyTorch's or TensorFlow's, with bytes changed, cut, repeated or taken from another file, or
with operations of hostile files put into it. It must be read or refused; nothing else may happen.
"""

from __future__ import annotations

import codecs
import collections
import pickletools
import random
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from dnnlib.errors import UserError
from tests.official.hostile import HOSTILE, WATCHED, memory
from tests.official.stand_in import official_pickle, small_networks, tensorflow_pickle
from training.official.read import read_official

EXTREMES = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")


class Fuzzer:
    """Draws damaged files."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self._draw = random.Random(seed)
        tiny = {"img_resolution": 8, "mapping_layers": 1}
        networks = {"G_ema": small_networks(**tiny)["G_ema"]}
        self.good = [official_pickle(networks, protocol) for protocol in (3, 5)]
        self.good.append(tensorflow_pickle(small_networks()))
        self._starts = [[position for _, _, position in pickletools.genops(raw)] for raw in self.good]
        names = [name for name in HOSTILE if "deep" not in name and "million" not in name and "10 MB" not in name]
        self._pieces = [HOSTILE[name]()[2:-1] for name in names]

    def file(self) -> bytes:
        index = self._draw.randrange(len(self.good))
        raw, starts = bytearray(self.good[index]), self._starts[index]
        for _ in range(self._draw.choice((1, 1, 1, 2, 4, 16))):
            self._damage(raw, starts)
        return bytes(raw)

    def _damage(self, raw: bytearray, starts: list[int]) -> None:
        draw = self._draw
        at = draw.choice(starts) if draw.random() < 0.7 else draw.randrange(len(raw) + 1)
        at = min(at, len(raw))
        length = draw.choice((1, 1, 2, 4, 16, 256))
        match draw.randrange(7):
            case 0:
                raw[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del raw[at : at + length]
            case 2:
                raw[at:at] = raw[at : at + length]
            case 3:
                other = draw.choice(self.good)
                start = draw.randrange(len(other))
                raw[at : at + length] = other[start : start + length]
            case 4:
                raw[at + 1 : at + 5] = draw.choice(EXTREMES)
            case 5:
                raw[at:at] = draw.choice(self._pieces)
            case _:
                del raw[at:]


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    fuzzer, events = Fuzzer(seed), collections.Counter[str]()
    counts, slowest = collections.Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pkl"
        for raw in fuzzer.good:  # what is imported once is imported now
            path.write_bytes(raw)
            read_official(path, ["G_ema"])
        before, end = memory(), time.monotonic() + 60 * minutes
        codecs.lookup("raw_unicode_escape")  # of texts in old pickles
        sys.addaudithook(lambda event, _: events.update([event]) if event.startswith(WATCHED) else None)
        while time.monotonic() < end:
            path.write_bytes(fuzzer.file())
            events.clear()
            start = time.perf_counter()
            try:
                read_official(path, ["G_ema"])
                counts["read"] += 1
            except UserError:
                counts["refused"] += 1
            except Exception as error:
                counts[f"{type(error).__name__}: {error}"[:200]] += 1
                (Path(tempfile.gettempdir()) / f"fuzz-{type(error).__name__}.pkl").write_bytes(path.read_bytes())
            slowest = max(slowest, time.perf_counter() - start)
            counts |= {f"event {event}": 1 for event in events if event != "open"}
    click.echo(f"{sum(counts.values())} files in {minutes} minutes: {dict(counts)}")
    click.echo(f"slowest {slowest:.2f} s, memory grew by {memory() - before:.0f} MB")
    sys.exit(0 if counts.keys() <= {"read", "refused"} else 1)


if __name__ == "__main__":
    main()

"""Our side of `benchmarks.step`: the trainer's own phases."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.host import a_batch, session_of, wait
from benchmarks.worker import serve
from training.ema import update_ema


def main() -> None:
    options = json.loads(sys.argv[1])
    names = ("batch", "cbase", "cmax", "map_depth", "num_fp16_res", "tf32", "device")
    given = {name: options[name] for name in names}
    low = options["num_fp16_res"] > 0
    precision, clamp = (options["precision"], 256.0) if low else ("fp32", None)
    session = session_of(options["resolution"], precision=precision, conv_clamp=clamp, **given)
    if options["channels_last"]:
        for network in session.networks().values():
            network.to(memory_format=torch.channels_last)
    batch = a_batch(session)
    runs = {phase.name: lambda phase=phase: phase.step([batch]) for phase in session.phases}
    serve({**runs, "EMA": lambda: update_ema(session.G_ema, session.G, 0.999)}, lambda: wait(session.device))


if __name__ == "__main__":
    main()

"""Train small configurations for a few steps and print a SHA-256 of each run's weights, distillation state and losses.

A change that is not meant to change behaviour must not change this output on one machine:

    python tests/fingerprints.py --save before.txt
    python tests/fingerprints.py --compare before.txt              after the change
    python tests/fingerprints.py --checkout OTHER --save other.txt   the same for another checkout
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

COMMON = (
    "--data=demo --cfg=demo --cbase=256 --cmax=16 --w-dim=16 --batch=8 --kimg=.08 --tick=.04 --snap=1 --holdout=8",
    "--r1-every=4 --mbstd-group=4 --precision=fp32 --kd-precision=fp32 --device=cpu --workers=0",
)

RUNS = {
    "baseline": "--kd=none",
    "default": "--kd=demo",
    "agkd": "--kd=demo --kd-cgkd=0 --kd-match=0 --kd-critic=0",
    "cgkd": "--kd=demo --kd-agkd=0 --kd-match=0 --kd-critic=0",
    "diversity": "--kd=demo --kd-agkd=0 --kd-cgkd=0 --kd-match=0 --kd-critic=0 --kd-diversity=1",
    "diversity-student": "--kd=demo --kd-match=0 --kd-critic=0 --kd-diversity=1 --kd-diversity-on=student",
    "match": "--kd=demo --kd-agkd=0 --kd-cgkd=0 --kd-critic=0",
    "match-unbalanced": "--kd=demo --kd-agkd=0 --kd-cgkd=0 --kd-critic=0 --kd-match-pull=0 --kd-match-distance=energy",
    "critic": "--kd=demo --kd-agkd=0 --kd-cgkd=0 --kd-match=0",
    "all": "--kd=demo --kd-diversity=.5 --kd-p=.5",
    "paper": "--kd=demo --kd-variant=paper",
    "release": "--kd=demo --kd-variant=release",
    "orthogonal": "--kd=demo --kd-variant=orthogonal",
    "seen": "--kd=demo --kd-view=seen",
    "clean": "--kd=demo --kd-view=clean --mirror=true",
    "heads": "--kd=demo --kd-head=mlp --kd-norm=unit --kd-layer=b8.conv1,b4.fc --kd-distance=l2 --kd-cgkd-distance=mse",
    "schedule": "--kd=demo --kd-every=2 --kd-warmup=.03 --kd-until=.07",
    "shuffle": "--kd=demo --kd-control=shuffle",
    "scramble": "--kd=demo --kd-control=scramble",
    "teachers": "--kd=demo+.5*demo --kd-diversity=.5",
    "ada": "--kd=demo --aug=ada --ada-kimg=.1",
    "lecam": "--kd=demo --lecam=.3",
    "microbatches": "--kd=demo --batch-gpu=4 --pl-weight=2 --pl-every=3",
    "processes": "--kd=demo --kd-diversity=.5 --gpus=2",
}
# A second command, run after the first one in the same folder.
CONTINUED = {
    "resume": ("--kd=demo --kd-p=.5", "--kd=demo --kd-p=.5 --kimg=.16 --resume=latest"),
    "resume-teachers": ("--kd=demo+.5*demo", "--kd=demo+.5*demo --kimg=.16 --resume=latest"),
    "freeze-d": ("--kd=demo", "--kd=demo --freezed=2 --desc=warm --resume={snapshot}"),
}


def leaves(value: Any) -> Iterator[bytes]:
    """Every tensor and float in a nested state, as bytes; the names may change, the numbers must not."""
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        yield f"{array.dtype}{tuple(array.shape)}".encode() + array.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, float):
        yield struct.pack("<d", value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)


def digest(value: Any) -> str:
    """The same for the same numbers in any order."""
    parts = sorted(hashlib.sha256(leaf).hexdigest() for leaf in leaves(value))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def losses_of(run_dir: Path) -> list[float]:
    """All logged figures that do not depend on the clock."""
    found: list[float] = []
    for line in (run_dir / "stats.jsonl").read_text().splitlines():
        for name, figure in sorted(json.loads(line).items()):
            if name.startswith(("Loss/", "KD/", "Overfit/")):
                found.append(-1.0 if figure["mean"] is None else figure["mean"])
    return found


def train(checkout: Path, outdir: Path, flags: list[str]) -> Path:
    """Run train.py of `checkout`; the newest run folder."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "train.py", *" ".join(COMMON).split(), f"--outdir={outdir}", *flags]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(flags)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return max(path for path in outdir.iterdir() if path.is_dir())


def fingerprint(checkout: Path, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        outdir = Path(folder)
        commands = CONTINUED.get(name) or (RUNS[name],)
        snapshot = ""
        for command in commands:
            run_dir = train(checkout, outdir, command.format(snapshot=snapshot).split())
            snapshot = str(max(run_dir.glob("network-snapshot-*.safetensors")))
        state = torch.load(run_dir / "training-state.pt", map_location="cpu", weights_only=True)
        if "parts" in state:
            state = state["parts"]
            weights = {name: part for name, part in state.items() if name[0] in "GD" or name.startswith("optimizer")}
        else:  # version 0.1
            weights = [state["networks"], state["optimizers"]]
        kd, losses = state.get("kd"), losses_of(run_dir)
        return f"{name:<18} weights {digest(weights)}  kd {digest(kd)}  losses {digest(losses)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--only", nargs="*", help="names of runs")
    args = parser.parse_args()
    names = args.only or [*RUNS, *CONTINUED]
    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(lambda name: fingerprint(args.checkout, name), names))
    print("\n".join(lines))
    if args.save:
        args.save.write_text("\n".join(lines) + "\n")
    if args.compare:
        before = {line.split()[0]: line for line in args.compare.read_text().splitlines()}
        changed = [line for line in lines if before[line.split()[0]] != line]
        for line in changed:
            print(f"CHANGED  {line}\n  before {before[line.split()[0]]}")
        print(f"{len(lines) - len(changed)} of {len(lines)} runs unchanged")
        sys.exit(bool(changed))


if __name__ == "__main__":
    main()

"""Does distillation help a GAN that has only 100 images? A controlled study on the demo's drawings.

    python -m benchmarks.few_shot run --out=DIR --detector=NET.pt --jobs=2    trains what is missing; stop at will
    python -m benchmarks.few_shot table --out=DIR                             the results so far, as markdown

benchmarks/results/few_shot.jsonl holds those that were made; copied into DIR as results.jsonl, they are not made again.

The same GAN (`--cfg=demo`) on 100 drawings without distillation, on the same 100 with each form, and on 5,000 drawings
as the ceiling; other drawings for every seed. Judged against 5,000 fresh drawings in features that have nothing to do
with the teacher. A form's score is the share of the distance between 100 and 5,000 that it closes, of means over seeds:
within one seed that distance may be nothing.

The same on photos: --few=100-shots.zip --all=the-whole-set.zip --teacher=script:... --resolution=32, with --diffaugment
as such sets are trained.

Drawings are not augmented: with the preset's translations the discriminator has not learned its 100 drawings by heart
after 50 kimg (gap .36), and 5,000 are no better than 100; without, the gap is .57 then, and they are.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dnnlib.errors import UserError
from training.cli import script

NONE, CEILING = "none", "all images"  # without distillation, on few images and on many
_WHOLE = ("--kd-variant=paper",)
_PAPER = (*_WHOLE, "--kd-diversity=0")  # a pass through the teacher for nothing that D is taught
_AGKD = (*_PAPER, "--kd-cgkd=0")
_CGKD = (*_PAPER, "--kd-agkd=0")
_BESIDE_MATCHING = ("--kd-match=1", "--kd-match-pull=1")
_BOTH = ("--kd-match=0",)  # the terms of D as the defaults have them
_STANDARD = (*_BOTH, "--kd-cgkd=0")
_CENTRED = (*_BOTH, "--kd-agkd=0")
_ALONE = ("--kd-agkd=0", "--kd-cgkd=0")
_AS_WEIGHTED = "--kd-match-pull=0"
_MATCH = (*_ALONE, _AS_WEIGHTED)
_SHUFFLED = "--kd-control=shuffle"

# What each run adds to `train.py --cfg=demo`.
FORMS: dict[str, tuple[str, ...]] = {
    NONE: (),
    CEILING: (),
    "match": _MATCH,
    "match, scrambled teacher": (*_MATCH, "--kd-control=scramble"),
    "match, teacher of drawings": (*_MATCH, "--kd=demo"),  # for the study on photos, of which it knows nothing
    "match, scrambled teacher of drawings": (*_MATCH, "--kd=demo", "--kd-control=scramble"),
    "match, at least 1": _ALONE,
    "match, at least 1, scrambled teacher": (*_ALONE, "--kd-control=scramble"),
    "match, at least 3": (*_ALONE, "--kd-match-pull=3"),
    "match + both": (_AS_WEIGHTED,),
    "match + both, at least 1": (),
    "AGKD (paper)": _AGKD,
    "AGKD (paper), shuffled": (*_AGKD, _SHUFFLED),
    "CGKD (paper)": _CGKD,
    "CGKD (paper), shuffled": (*_CGKD, _SHUFFLED),
    "match + AGKD (paper), at least 1": (*_AGKD, *_BESIDE_MATCHING),
    "match + CGKD (paper)": (*_CGKD, "--kd-match=1"),
    "match + CGKD (paper), at least 1": (*_CGKD, *_BESIDE_MATCHING),
    "AGKD + CGKD (paper)": _PAPER,
    "diversity": (*_WHOLE, "--kd-agkd=0", "--kd-cgkd=0"),
    "paper": _WHOLE,
    "release": ("--kd-variant=release",),
    "orthogonal": ("--kd-variant=orthogonal",),
    "AGKD 12, p 0": (*_AGKD, "--kd-agkd=12", "--kd-p=0"),
    "AGKD 12, p 0, shuffled": (*_AGKD, "--kd-agkd=12", "--kd-p=0", _SHUFFLED),
    "standardised, balance 1": (*_STANDARD, "--kd-balance=1"),
    "standardised, balance 3": (*_STANDARD, "--kd-balance=3"),
    "standardised, balance 1, shuffled": (*_STANDARD, "--kd-balance=1", _SHUFFLED),
    "standardised, balance 1, p .7": (*_STANDARD, "--kd-balance=1", "--kd-p=0.7"),
    "whitened, balance 1": (*_STANDARD, "--kd-norm=whiten", "--kd-balance=1"),
    "unit, mse, balance 1": (*_STANDARD, "--kd-norm=unit", "--kd-distance=mse", "--kd-balance=1"),
    "standardised, mse, balance 1": (*_STANDARD, "--kd-distance=mse", "--kd-balance=1"),
    "standardised, linear head, balance 1": (*_STANDARD, "--kd-head=linear", "--kd-balance=1"),
    "standardised, mlp head, balance 1": (*_STANDARD, "--kd-head=mlp", "--kd-balance=1"),
    "before mbstd, balance 1": (*_STANDARD, "--kd-layer=b8.conv1", "--kd-balance=1"),
    "before mbstd and fc, balance 1": (*_STANDARD, "--kd-layer=b8.conv1,b4.fc", "--kd-balance=1"),
    "three layers, balance 1": (*_STANDARD, "--kd-layer=b16.conv1,b8.conv1,b4.fc", "--kd-balance=1"),
    "standardised, balance 3, until 10": (*_STANDARD, "--kd-balance=3", "--kd-until=10"),
    "CGKD centred, balance 1": (*_CENTRED, "--kd-balance=1"),
    "CGKD centred, balance 1, shuffled": (*_CENTRED, "--kd-balance=1", _SHUFFLED),
    "CGKD centred, mse, balance 1": (*_CENTRED, "--kd-cgkd-distance=mse", "--kd-balance=1"),
    "CGKD centred, before mbstd, balance 1": (*_CENTRED, "--kd-layer=b8.conv1", "--kd-balance=1"),
    "CGKD, balance 3": (*_CENTRED, "--kd-centre=0", "--kd-balance=3"),
    "match + CGKD, balance 3": ("--kd-agkd=0", "--kd-centre=0", "--kd-balance=3", _AS_WEIGHTED),
    "both, standardised, centred, balance .3": _BOTH,
}
LAST = 4  # snapshots whose figures are averaged


@dataclass(frozen=True)
class Run:
    form: str
    seed: int

    @property
    def name(self) -> str:
        plain = "".join(char if char.isalnum() or char == "." else "-" for char in self.form)
        return f"{'-'.join(part for part in plain.split('-') if part)}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    out: Path
    kimg: float
    detector: str
    teacher: str
    few: str | None
    many: str | None
    resolution: int | None
    diffaugment: str
    view: str

    def images(self, item: Run) -> list[str]:
        """The flags that name a run's images."""
        if self.few is None or self.many is None:
            count = 5000 if item.form == CEILING else 100
            return [f"--data=demo:{count}@{100 + 10 * item.seed}"]  # series that nobody else uses
        size = [] if self.resolution is None else [f"--resolution={self.resolution}"]
        if item.form == CEILING:
            return [f"--data={self.many}", *size]
        return [f"--data={self.few}", f"--reference={self.many}", "--holdout=10", *size]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where runs and results are kept")
@click.option("--seeds", default=3, show_default=True)
@click.option("--kimg", default=120.0, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Runs at the same time, one thread each")
@click.option("--detector", required=True, help="TorchScript features; must not be the teacher's")
@click.option("--form", "forms", multiple=True, help="Only these  [default: all]")
@click.option("--teacher", default="demo", show_default=True)
@click.option("--few", metavar="ZIP", help="Photos to train on  [default: 100 drawings, others for each seed]")
@click.option("--all", "many", metavar="ZIP", help="The set that they are from, to compare with; needed with --few")
@click.option("--resolution", type=int, help="With --few: crop and resize to this")
@click.option("--diffaugment", default="none", show_default=True)
@click.option("--view", default="seen", show_default=True, help="clean: a large teacher looks at each photo once")
@script
def run(
    out: Path, seeds: int, kimg: float, jobs: int, detector: str, forms: tuple[str, ...], teacher: str,
    few: str | None, many: str | None, resolution: int | None, diffaugment: str, view: str,
) -> None:  # fmt: skip
    """Trains what is missing, seed by seed."""
    if (few is None) != (many is None):
        raise UserError("--few and --all: give both, or neither for the demo's drawings")
    study = Study(out, kimg, detector, teacher, few, many, resolution, diffaugment, view)
    for form in forms:
        if form not in FORMS:
            raise UserError(f"--form: '{form}' is unknown; known are: {', '.join(FORMS)}")
    chosen = forms or tuple(FORMS)
    done = {(row["form"], row["seed"]) for row in _results(out) if row["kimg"] == kimg}
    waiting = [Run(form, seed) for seed in range(seeds) for form in chosen if (form, seed) not in done]
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for one in as_completed([pool.submit(_train, item, study) for item in waiting]):
            try:
                row = one.result()
            except UserError as error:  # the others go on
                failed.append(str(error))
                continue
            with open(out / "results.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            click.echo(f"{row['form']}, seed {row['seed']}: {row['kid']}")
    if failed:
        raise UserError("; ".join(failed))


def _train(item: Run, study: Study) -> dict[str, Any]:
    folder = study.out / item.name
    folder.mkdir(parents=True, exist_ok=True)
    plain = item.form in (NONE, CEILING)
    command = [
        "train.py", "--cfg=demo", f"--diffaugment={study.diffaugment}", *study.images(item), f"--seed={item.seed}",
        f"--kimg={study.kimg}", "--tick=2.5", "--snap=2", "--snap-keep=1", f"--outdir={folder}",
        "--metrics=kid1k_full,mem1k", f"--detector={study.detector}", "--precision=fp32", "--device=cpu",
        "--resume=latest", *([] if plain else [f"--kd={study.teacher}", f"--kd-view={study.view}"]), *FORMS[item.form],
    ]  # fmt: skip
    _call(command, folder / "train.txt")
    (run_dir,) = (path for path in folder.iterdir() if path.is_dir())
    figures = _figures(run_dir)
    if study.few is None:  # the drawings' attributes, asked of the demo teacher
        network = max(run_dir.glob("network-snapshot-0*.safetensors"))
        judged = folder / "attributes.jsonl"
        asked = [f"--network={network}", *study.images(item), "--metrics=attr1k", "--detector=demo"]
        _call(["evaluate.py", *asked], judged)
        figures["attr"] = json.loads(judged.read_text(encoding="utf-8").splitlines()[-1])["results"]
    return {"form": item.form, "seed": item.seed, "kimg": study.kimg, "flags": FORMS[item.form], **figures}


def _call(command: list[str], output: Path) -> None:
    with open(output, "w", encoding="utf-8") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}; see {output}")


def _figures(run_dir: Path) -> dict[str, Any]:
    """The figures of a finished run: of the last snapshots, and of the last ticks."""
    metrics = {
        name: [json.loads(line)["results"] for line in (run_dir / f"metric-{name}.jsonl").read_text().splitlines()]
        for name in ("kid1k_full", "mem1k")
    }
    kid = [next(iter(results.values())) for results in metrics["kid1k_full"]]
    ticks = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()][-5:]

    def last(name: str) -> float | None:
        values = [tick[name]["mean"] for tick in ticks if name in tick and tick[name]["mean"] is not None]
        return statistics.mean(values) if values else None

    return {
        "kid": kid,
        "mem": metrics["mem1k"][-1],
        "gap": last("Overfit/gap"),
        "explained": last("KD/explained"),
        "explained_holdout": last("KD/explained_holdout"),
        "pull": last("Loss/KD/grad_ratio"),
    }


def _results(out: Path) -> list[dict[str, Any]]:
    path = out / "results.jsonl" if out.is_dir() else out
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The study's folder, or its results.jsonl")
@script
def table(out: Path) -> None:
    """Mean over seeds; ± is the standard error of the mean."""
    click.echo("\n".join(_table(_results(out))))


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["form"], {})[row["seed"]] = row | {"distance": statistics.mean(row["kid"][-LAST:])}
    yield "| form | seeds | KID | share closed | gap | explained, training / held out | pull | pairs, kinds | copies |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for form in [*(form for form in FORMS if form in found), *(form for form in found if form not in FORMS)]:
        runs = found[form]

        def mean(*path: str, runs: dict[int, dict[str, Any]] = runs) -> str:
            values = []
            for item in runs.values():
                value: Any = item
                for key in path:
                    value = None if value is None else value.get(key)
                values.append(value)
            return _mean(values)

        attributes = [mean("attr", "attr1k_coverage"), mean("attr", "attr1k_kinds")]
        yield (
            f"| {form} | {len(runs)} | {mean('distance')} | {_share(found, form)} | {mean('gap')} "
            f"| {mean('explained')} / {mean('explained_holdout')} | {mean('pull')} "
            f"| {', '.join(filter(None, attributes))} | {mean('mem', 'mem1k_auc')} |"
        )


def _share(found: dict[str, dict[int, dict[str, Any]]], form: str) -> str:
    """Of mean distances, over the seeds that all three have; ± by leaving out one seed at a time (jackknife).

    Empty where many images are no better than few: then there is nothing to close.
    """
    runs = [found.get(name, {}) for name in (NONE, form, CEILING)]
    seeds = sorted(set.intersection(*(set(one) for one in runs)))

    def share(chosen: list[int]) -> float:
        none, own, ceiling = (statistics.mean(one[seed]["distance"] for seed in chosen) for one in runs)
        return (none - own) / (none - ceiling) if none > ceiling else math.nan

    if len(seeds) < 2:
        return _number(share(seeds)) if seeds else ""
    others = [share([seed for seed in seeds if seed != left_out]) for left_out in seeds]
    return _number(share(seeds), math.sqrt((len(seeds) - 1) * statistics.pvariance(others)))


def _mean(values: list[Any]) -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2:
        return _number(numbers[0]) if numbers else ""
    return _number(statistics.mean(numbers), statistics.stdev(numbers) / math.sqrt(len(numbers)))


def _number(value: float, *error: float) -> str:
    return "" if any(map(math.isnan, (value, *error))) else " ± ".join(f"{part:.2f}" for part in (value, *error))


if __name__ == "__main__":
    main()

"""Does distillation help a GAN that has only 100 images? The runs of a controlled study.

    python -m studies.few_shot --out=DIR --detector=NET.pt --jobs=2      train what is missing; stop it any time
    python -m studies.tables                                             tables and figure from studies/results

The same GAN (`--cfg=demo`) is trained on 100 images without distillation, with each form of studies/forms.toml, and on
many images as the ceiling, with other images and another initialisation for every seed. It is judged against images it
never saw, in features unrelated to the teacher's. DIR/results.jsonl gets a line per run; runs in it are not repeated.

Default: the demo's drawings, 100 or 5,000, without augmentation. Photos: --few=100-shots.zip --all=whole-set.zip
--teacher=script:... --resolution=32 --diffaugment=color,translation,cutout.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from dnnlib.errors import UserError
from studies.judging import swd_of
from studies.results import CEILING, FORMS, NONE, load_results
from training.cli import script
from training.data.image_sets import ImageOptions


@dataclass(frozen=True)
class Run:
    form: str
    seed: int

    @property
    def name(self) -> str:
        """A folder's name."""
        plain = "".join(char if char.isalnum() or char == "." else "-" for char in self.form)
        return f"{'-'.join(part for part in plain.split('-') if part)}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """The flags of this command: what all runs share."""

    out: Path
    seeds: int
    kimg: float
    jobs: int
    detector: str
    forms: tuple[str, ...]
    teacher: str
    few: str | None
    many: str | None
    resolution: int | None
    diffaugment: str
    view: str
    judge: str | None

    def images(self, run: Run) -> ImageOptions:
        if self.few is None or self.many is None:
            count = 5000 if run.form == CEILING else 100
            return ImageOptions(f"demo:{count}@{100 + 10 * run.seed}")  # series used by nothing else
        if run.form == CEILING:
            return ImageOptions(self.many, self.resolution)
        return ImageOptions(self.few, self.resolution, holdout=10, reference=self.many)

    def missing(self) -> list[Run]:
        """The runs that results.jsonl does not have, seed by seed."""
        done = load_results(self.out / "results.jsonl").runs
        return [
            Run(form, seed)
            for seed in range(self.seeds)
            for form in self.forms or tuple(FORMS)
            if done.get(form, {}).get(seed, {}).get("kimg") != self.kimg
        ]


@click.command(help=__doc__)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for runs and results")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds")
@click.option("--kimg", default=120.0, show_default=True, help="Length of a run")
@click.option("--jobs", default=1, show_default=True, help="Runs at the same time, one thread each")
@click.option("--detector", required=True, help="TorchScript features for KID; must not be the teacher's")
@click.option("--form", "forms", multiple=True, help="Only these forms  [default: all]")
@click.option("--teacher", default="demo", show_default=True, help="As for --kd of train.py")
@click.option("--few", metavar="ZIP", help="Photos to train on  [default: 100 drawings, others for each seed]")
@click.option("--all", "many", metavar="ZIP", help="The full set that --few was taken from, to compare with")
@click.option("--resolution", type=int, help="With --few: crop and resize to this")
@click.option("--diffaugment", default="none", show_default=True, help="As for train.py")
@click.option("--judge", metavar="FILE.pt", help="A second detector, for KID at the end (studies/train_judge.py)")
@click.option("--view", default="seen", show_default=True, help="clean: a large teacher embeds each photo once")
@script
def main(**flags: Any) -> None:
    study = Study(**flags)
    if (study.few is None) != (study.many is None):
        raise UserError("--few and --all: give both, or neither for the demo's drawings")
    for form in study.forms:
        if form not in FORMS:
            raise UserError(f"--form: '{form}' is unknown; known are: {', '.join(FORMS)}")
    failed = []
    with ThreadPoolExecutor(study.jobs) as pool:
        for future in as_completed([pool.submit(train, run, study) for run in study.missing()]):
            try:
                row = future.result()
            except UserError as error:  # the other runs continue
                failed.append(str(error))
                continue
            with open(study.out / "results.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            click.echo(f"{row['form']}, seed {row['seed']}: {row['kid']}")
    if failed:
        raise UserError("; ".join(failed))


def train(run: Run, study: Study) -> dict[str, Any]:
    """Train and measure one run; returns its line of results.jsonl.

    Raises:
        UserError: a command failed; names its output.
    """
    folder = study.out / run.name
    folder.mkdir(parents=True, exist_ok=True)
    teacher = [] if run.form in (NONE, CEILING) else [f"--kd={study.teacher}", f"--kd-view={study.view}"]
    images = study.images(run)
    command = [
        "train.py", "--cfg=demo", f"--diffaugment={study.diffaugment}", *flags_of(images), f"--seed={run.seed}",
        f"--kimg={study.kimg}", "--tick=2.5", "--snap=2", "--snap-keep=1", f"--outdir={folder}",
        "--metrics=kid1k_full,mem1k", f"--detector={study.detector}", "--precision=fp32", "--device=cpu",
        "--resume=latest", *teacher, *FORMS[run.form],
    ]  # fmt: skip
    call(command, folder / "train.txt")
    (run_dir,) = (path for path in folder.iterdir() if path.is_dir())
    network = max(run_dir.glob("network-snapshot-0*.safetensors"))
    values = measured(run_dir) | {"swd": swd_of(network, images)}

    def evaluated(metric: str, detector: str) -> dict[str, float]:
        output = folder / f"{metric}.jsonl"
        shown = flags_of(replace(images, holdout=0))  # of no account for these metrics
        call(["evaluate.py", f"--network={network}", *shown, f"--metrics={metric}", f"--detector={detector}"], output)
        results: dict[str, float] = json.loads(output.read_text(encoding="utf-8").splitlines()[-1])["results"]
        return results

    if study.judge:
        values["judge"] = evaluated("kid1k_full", study.judge)["kid1k_full"]
    if study.few is None:
        values["attr"] = evaluated("attr1k", "demo")  # the drawings' attributes, classified by the demo teacher
    return {"form": run.form, "seed": run.seed, "kimg": study.kimg, "flags": FORMS[run.form], **values}


def flags_of(images: ImageOptions) -> list[str]:
    given = {"reference": images.reference, "holdout": images.holdout, "resolution": images.resolution}
    return [f"--data={images.data}", *(f"--{name}={value}" for name, value in given.items() if value)]


def call(command: list[str], output: Path) -> None:
    with open(output, "w", encoding="utf-8") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}; see {output}")


def measured(run_dir: Path) -> dict[str, Any]:
    """KID of every snapshot, memorisation of the last, and means over the last five ticks."""
    metrics = {
        name: [json.loads(line)["results"] for line in (run_dir / f"metric-{name}.jsonl").read_text().splitlines()]
        for name in ("kid1k_full", "mem1k")
    }
    ticks = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()][-5:]

    def last(name: str) -> float | None:
        values = [tick[name]["mean"] for tick in ticks if name in tick and tick[name]["mean"] is not None]
        return statistics.mean(values) if values else None

    return {
        "kid": [next(iter(results.values())) for results in metrics["kid1k_full"]],
        "mem": metrics["mem1k"][-1],
        "gap": last("Overfit/gap"),
        "explained": last("KD/explained"),
        "explained_holdout": last("KD/explained_holdout"),
        "grad_ratio": last("Loss/KD/grad_ratio"),
    }


if __name__ == "__main__":
    main()

"""The options of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, dataclass, field

from dnnlib.errors import UserError
from kd_plugin.config.click_flags import plain_flag, require_in_range
from kd_plugin.config.kd import KDConfig
from kd_plugin.config.ranges import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SEED, SHARE, Range
from kd_plugin.config.schema import option, to_dict
from kd_plugin.errors import KDError, nearest
from training.data.image_sets import ImageOptions
from training.losses import LOSSES
from training.networks import MODELS, Model

__all__ = [
    "ADA_KIMG",
    "ADA_KIMG_WARM",
    "DEMO_HOLDOUT",
    "SIZE",
    "TrainConfig",
    "require_model",
    "with_precision",
]

ADA_KIMG = 500.0
ADA_KIMG_WARM = 100.0  # a trained discriminator overfits sooner: ADA may adjust p faster, as in the official code
DEMO_HOLDOUT = 64  # fresh drawings cost nothing
SIZE, DEPTH, PROCESSES, BETA = Range(1, 2**20), Range(1, 1000), Range(1, 4096), Range(0, 0.999999)
_PRESET = "the preset's"  # what --help says where a column of training/presets.py supplies the value


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run, fully resolved: what config.json holds. Fields that say 'the preset's' have a value in every preset.

    Raises:
        UserError: values that contradict each other, naming the flags.
    """

    data: str = option(
        "demo",
        "Training images: a zip, a folder, a few-shot set's name, or demo",
        metavar="ZIP|DIR|NAME",
        group="Images and results",
    )
    outdir: str = option("runs", "Folder for the run folders", metavar="DIR")
    desc: str | None = option(None, "Text appended to the run folder's name", metavar="TEXT")
    cfg: str = option(
        "low_shot",
        "Preset: low_shot, auto, stylegan2, paper256, paper512, paper1024, cifar, biggan_cifar, demo",
        metavar="NAME",
        shown_default="low_shot; demo with --data=demo",
    )
    resolution: int | None = option(
        None,
        "Crop and resize every image to this size (a power of two)",
        metavar="PIXELS",
        shown_default="the images'",
        range=Range(4, 2**14),
    )
    cond: bool = option(False, "Train on the labels of dataset.json", shown_default=_PRESET)
    mirror: bool = option(False, "Add the mirror image of every image", shown_default=_PRESET)
    subset: int | None = option(
        None, "Train on this many images, drawn with --seed", metavar="N", shown_default="all", range=AT_LEAST_1
    )
    holdout: int = option(
        0,
        "Hold out N images and report D's scores on them; with --data=demo, N new drawings",
        metavar="N",
        shown_default=f"0; {DEMO_HOLDOUT} with --data=demo",
        range=AT_LEAST_0,
    )

    kimg: float = option(
        MISSING,
        "Training length in thousands of images",
        metavar="KIMG",
        shown_default=_PRESET,
        group="Schedule",
        range=ABOVE_0,
    )
    tick: float = option(MISSING, "Interval between log lines", metavar="KIMG", shown_default=_PRESET, range=ABOVE_0)
    snap: int = option(
        MISSING, "Ticks between saved images and weights", metavar="TICKS", shown_default=_PRESET, range=AT_LEAST_1
    )
    snap_keep: int | None = option(
        None, "Keep only the newest N snapshots and the best one", metavar="N", shown_default="all", range=AT_LEAST_1
    )
    seed: int = option(0, "Random seed", metavar="N", range=SEED)
    batch: int = option(MISSING, "Images per step", metavar="N", shown_default=_PRESET, range=SIZE)
    batch_gpu: int | None = option(
        None,
        "Images per process at a time; gradients are accumulated up to --batch",
        metavar="N",
        shown_default="--batch / --gpus",
        range=AT_LEAST_1,
    )

    model: str = option(
        "stylegan2",
        "Architecture: stylegan2, or biggan, whose width is --cmax",
        metavar="NAME",
        shown_default=_PRESET,
        group="Networks",
    )
    cbase: int = option(
        MISSING, "Channels at resolution r: cbase / r, at most cmax", metavar="N", shown_default=_PRESET, range=SIZE
    )
    cmax: int = option(MISSING, "Maximum number of channels", metavar="N", shown_default=_PRESET, range=SIZE)
    map_depth: int = option(MISSING, "Layers of the mapping network", metavar="N", shown_default=_PRESET, range=DEPTH)
    z_dim: int = option(MISSING, "Width of the latent z", metavar="N", shown_default=_PRESET, range=SIZE)
    w_dim: int = option(MISSING, "Width of the intermediate latent w", metavar="N", shown_default=_PRESET, range=SIZE)
    noise: bool = option(MISSING, "Give the generator noise inputs", shown_default=_PRESET)
    arch: str = option(MISSING, "Discriminator architecture", choices=("resnet", "skip", "orig"), shown_default=_PRESET)
    mbstd_group: int = option(MISSING, "Group size of minibatch-std", metavar="N", shown_default=_PRESET, range=SIZE)
    num_fp16_res: int = option(
        4, "The highest N resolutions compute in --precision, the others in fp32", metavar="N", range=AT_LEAST_0
    )
    precision: str = option(
        "auto",
        "auto: fp16 on CUDA; on a CPU bf16 if it is measured to be faster",
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    tf32: bool = option(False, "Allow TF32")
    conv_clamp: float | None = option(256.0, "Clamp activations to ± this value", metavar="X", range=ABOVE_0)

    lr: float = option(
        MISSING,
        "Learning rate of both networks",
        metavar="X",
        shown_default=_PRESET,
        group="Losses and optimisers",
        range=ABOVE_0,
    )
    beta2: float = option(0.99, "Adam's beta2; beta1 is 0", metavar="X", shown_default=_PRESET, range=BETA)
    loss: str = option("logistic", "Adversarial loss", choices=LOSSES, shown_default=_PRESET)
    d_steps: int = option(1, "Steps of D for each step of G", metavar="N", shown_default=_PRESET, range=AT_LEAST_1)
    gamma: float = option(MISSING, "R1 weight", metavar="X", shown_default=_PRESET, range=AT_LEAST_0)
    r1_every: int = option(16, "Apply R1 every N-th step", metavar="STEPS", range=AT_LEAST_1)
    pl_weight: float = option(
        MISSING, "Path length weight; 0: off", metavar="X", shown_default=_PRESET, range=AT_LEAST_0
    )
    pl_every: int = option(4, "Apply path length every N-th step", metavar="STEPS", range=AT_LEAST_1)
    style_mixing: float = option(
        MISSING, "Probability of style mixing", metavar="[0,1]", shown_default=_PRESET, range=SHARE
    )
    ema_kimg: float = option(
        MISSING, "Half-life of the generator's moving average", metavar="KIMG", shown_default=_PRESET, range=AT_LEAST_0
    )
    ema_start: float = option(
        0.0,
        "Before this the average is a copy of the generator",
        metavar="KIMG",
        shown_default=_PRESET,
        range=AT_LEAST_0,
    )
    lecam: float = option(0.0, "Weight of LeCam regularisation; 0: off", metavar="X", range=AT_LEAST_0)
    freezed: int = option(0, "Freeze-D: freeze the first N layers of D", metavar="N", range=AT_LEAST_0)
    ema_rampup: float | None = option(
        MISSING,
        "EMA ramp-up: cap the half-life at this fraction of the images seen",
        metavar="X",
        shown_default=_PRESET,
        range=ABOVE_0,
    )

    diffaugment: str = option(
        MISSING,
        "DiffAugment policy, such as color,translation,cutout",
        metavar="POLICY|none",
        shown_default=_PRESET,
        group="Augmentation",
    )
    aug: str = option(
        MISSING, "ADA: adaptive, with a fixed p, or off", choices=("ada", "fixed", "noaug"), shown_default=_PRESET
    )
    augpipe: str = option(
        "bgc", "ADA's transforms: blit, geom, color, filter, noise, cutout, bg, bgc, ...", metavar="NAME"
    )
    p: float = option(0.0, "ADA: initial (ada) or constant (fixed) probability", metavar="[0,1]", range=SHARE)
    target: float = option(0.6, "ADA: target for the mean sign of D(real)", metavar="X", range=Range(-1, 1))
    ada_kimg: float | None = option(
        None,
        "ADA: minimum time in which p can rise from 0 to 1",
        metavar="KIMG",
        shown_default=f"{ADA_KIMG:g}; {ADA_KIMG_WARM:g} when starting from a snapshot",
        range=ABOVE_0,
    )

    metrics: str = option(
        "none",
        "Metrics at every snapshot, such as kid5k_full,mem1k (python evaluate.py --help lists them), or none",
        metavar="NAMES|none",
        group="Metrics",
    )
    best: str | None = option(
        None, "Keep the best snapshot by this metric", metavar="NAME", shown_default="the first of --metrics"
    )
    detector: str = option("inception", "inception, a TorchScript file, or a teacher", metavar="NAME|PATH")
    reference: str | None = option(
        None,
        "Compare generated images with these",
        metavar="ZIP|DIR|NAME",
        shown_default="all of --data; new drawings with --data=demo",
    )

    wandb: str | None = option(
        None,
        "Log to this Weights & Biases project too (pip install wandb); TensorBoard files are written where it is "
        "installed",
        metavar="PROJECT",
        group="Machine",
    )
    gpus: int = option(
        1,
        "Processes that share the batch, one per GPU if there are GPUs",
        metavar="N",
        shown_default="1; torchrun's",
        group="Machine",
        range=PROCESSES,
    )
    workers: int = option(
        2, "Processes that decode images if the set does not fit in memory", metavar="N", range=Range(0, 4096)
    )
    max_nan_steps: int = option(
        50, "Stop after N consecutive steps with non-finite gradients", metavar="STEPS", range=AT_LEAST_1
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", metavar="NAME")

    kd: KDConfig = field(default_factory=KDConfig, metadata={"flag": ""})

    def __post_init__(self) -> None:
        try:
            require_in_range(TrainConfig, to_dict(self))
        except KDError as error:
            raise UserError(str(error)) from None
        self._check_shares()
        self._check_model()
        if round(self.kimg * 1000) < 1:
            raise UserError(f"--kimg={self.kimg:g} is less than one image; 1 is a thousand")
        if self.aug != "noaug" and self.diffaugment != "none":
            raise UserError(
                f"--aug={self.aug} and --diffaugment={self.diffaugment} both augment what the discriminator sees; "
                "choose one (--aug=noaug or --diffaugment=none)"
            )

    def _check_shares(self) -> None:
        if self.batch % self.gpus:
            fitting = [n for n in range(1, self.batch + 1) if self.batch % n == 0]
            near = sorted(sorted(fitting, key=lambda n: abs(n - self.gpus))[:2])
            less = self.batch - self.batch % self.gpus
            batches = [str(size) for size in (less, less + self.gpus) if size]
            raise UserError(
                f"--gpus={self.gpus}: --batch={self.batch} images cannot be shared evenly by {self.gpus} processes; "
                f"give --gpus={' or '.join(map(str, near))}, or --batch={' or '.join(batches)}"
            )
        share = f"--batch={self.batch}" if self.gpus == 1 else f"the {self.local_batch} images of a process"
        micro = self.micro_batch
        if self.local_batch % micro:
            raise UserError(f"--batch-gpu: {micro} was given, it must be a divisor of {share}")

    def _check_model(self) -> None:
        if require_model(self.model).generator.has_w:
            return
        for name in ("pl_weight", "style_mixing"):
            if value := getattr(self, name):
                flag = plain_flag(name)
                raise UserError(
                    f"{flag}={value:g} is for a generator with a w; with --model={self.model} give {flag}=0"
                )

    @property
    def images(self) -> ImageOptions:
        """Which images this run uses."""
        return ImageOptions.of(vars(self))

    @property
    def local_batch(self) -> int:
        """Images a step in each process."""
        return self.batch // self.gpus

    @property
    def micro_batch(self) -> int:
        """Images that pass the networks at once."""
        return self.local_batch if self.batch_gpu is None else self.batch_gpu


def require_model(name: str) -> Model:
    """
    Raises:
        UserError: there is no architecture of this name; names the nearest.
    """
    if name not in MODELS:
        raise UserError(f"--model: '{name}' is unknown{nearest(name, MODELS)}")
    return MODELS[name]


def with_precision(config: TrainConfig, networks: str, teacher: str) -> TrainConfig:
    """The same run with these number types for networks and teacher."""
    return dataclasses.replace(config, precision=networks, kd=dataclasses.replace(config.kd, precision=teacher))

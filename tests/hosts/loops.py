"""Other people's training code, run for a few steps on a CPU: what tests/hosts/recipes.toml adds its lines to.

Each function imports the code of the checkout in the current folder, builds its networks as the checkout does, but
narrow and at a low resolution, and calls the checkout's own training function. Replaced are CUDA, the images and what
would be downloaded (perceptual losses). It returns the modules whose weights the test compares. One call a process.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

from kd_plugin.hosts.rehearsal import TorchOnCpu

__all__ = ["LOOPS", "STEPS"]

STEPS = 3
BATCH = 4


def _images(size: int, low: float = -1.0) -> Tensor:
    return torch.rand(BATCH, 3, size, size) * (1 - low) + low


def _endless(size: int, low: float = -1.0) -> Iterator[Tensor]:
    while True:
        yield _images(size, low)


def _mocked(*names: str) -> None:
    for name in names:
        sys.modules[name] = MagicMock()


def _cuda_calls_do_nothing() -> None:
    for kind in (Tensor, nn.Module):
        kind.cuda = lambda self, *_arguments, **_options: self  # type: ignore[method-assign, assignment]


def biggan() -> list[nn.Module]:
    utils: Any = importlib.import_module("utils")
    model: Any = importlib.import_module("BigGAN")
    train_fns: Any = importlib.import_module("train_fns")
    config = vars(utils.prepare_parser().parse_args([]))
    config.update(resolution=32, n_classes=10, G_ch=8, D_ch=8, dim_z=8, G_attn="0", D_attn="0", batch_size=BATCH)
    config.update(num_D_steps=1, num_D_accumulations=2, num_G_accumulations=2, G_batch_size=BATCH, toggle_grads=True)
    config.update(G_activation=nn.ReLU(), D_activation=nn.ReLU())
    G, D = model.Generator(**config), model.Discriminator(**config)
    z, y = utils.prepare_z_y(BATCH, G.dim_z, config["n_classes"], device="cpu")
    train = train_fns.GAN_training_function(G, D, model.G_D(G, D), z, y, None, {"itr": 0}, config)
    for _ in range(STEPS):
        train(torch.cat([_images(32), _images(32)]), torch.randint(10, (2 * BATCH,)))
    return [G, D]


def lightweight_gan() -> list[nn.Module]:
    torch.cuda.is_available = lambda: True  # asked when it is imported
    _cuda_calls_do_nothing()
    code: Any = importlib.import_module("lightweight_gan.lightweight_gan")
    code.torch = TorchOnCpu()
    options = {"image_size": 64, "latent_dim": 16, "aug_prob": 0.5, "use_aim": False}
    trainer = code.Trainer(batch_size=BATCH, gradient_accumulate_every=2, base_dir=".", **options)
    trainer.is_main = False  # it writes nothing
    trainer.init_GAN()
    trainer.loader = _endless(64, low=0.0)
    for _ in range(STEPS):
        trainer.train()
    return [trainer.GAN.G, trainer.GAN.D]


def fastgan() -> list[nn.Module]:
    _mocked("lpips")
    _cuda_calls_do_nothing()
    train: Any = importlib.import_module("train")
    networks: list[nn.Module] = []
    train.torch = TorchOnCpu()
    train.percept = lambda a, b: (a - b).square()
    train.ImageFolder = train.InfiniteSamplerWrapper = MagicMock()
    train.DataLoader = lambda *_arguments, **_options: _endless(256)
    train.copy_G_params = lambda module: networks.append(module) or [p.detach().clone() for p in module.parameters()]
    step = train.train_d
    train.train_d = lambda net, *arguments, **options: networks.append(net) or step(net, *arguments, **options)
    train.train(argparse.Namespace(path="", name="run", iter=STEPS - 1, ckpt="None", batch_size=BATCH, im_size=256))
    return list(dict.fromkeys(networks))


def r3gan() -> list[nn.Module]:
    program: Any = importlib.import_module("train")
    loop: Any = importlib.import_module("training.training_loop")
    networks: list[nn.Module] = []

    def train(c: Any, **_others: Any) -> None:
        for options in (c.G_kwargs, c.D_kwargs):
            options.update(WidthPerStage=[32] * 4, CardinalityPerStage=[4] * 4, FP16Stages=[])
        c.data_loader_kwargs = {}
        c.update(total_kimg=STEPS * BATCH / 1000, run_dir=".", image_snapshot_ticks=None, metrics=[])
        loop.training_loop(**c)

    program.launch_training = train
    loop.torch = TorchOnCpu()
    loop.setup_snapshot_image_grid = lambda training_set: ((1, 1), np.zeros((1, 3, 32, 32)), np.zeros((1, 0)))
    built = loop.dnnlib.util.construct_class_by_name

    def keep(*arguments: Any, **options: Any) -> Any:
        made = built(*arguments, **options)
        if isinstance(made, nn.Module):
            networks.append(made)
        return made

    loop.dnnlib.util.construct_class_by_name = keep
    flags = ["--outdir=.", "--data=images.zip", "--gpus=1", f"--batch={BATCH}", "--preset=CIFAR10", "--metrics=none"]
    program.main.main([*flags, f"--g-batch-gpu={BATCH // 2}", f"--d-batch-gpu={BATCH // 2}"], standalone_mode=False)
    return networks


def rosinality() -> list[nn.Module]:
    extension: Any = importlib.import_module("torch.utils.cpp_extension")
    extension.load = MagicMock()
    train: Any = importlib.import_module("train")
    model: Any = importlib.import_module("model")
    for folder in ("sample", "checkpoint"):
        Path(folder).mkdir(exist_ok=True)
    G, G_ema = (model.Generator(32, 32, 2, channel_multiplier=1) for _ in range(2))
    D = model.Discriminator(32, channel_multiplier=1)
    args = argparse.Namespace(
        distributed=False,
        iter=STEPS,
        start_iter=0,
        batch=BATCH,
        n_sample=4,
        latent=32,
        mixing=0.9,
        wandb=False,
        augment=False,
        augment_p=0,
        d_reg_every=2,
        g_reg_every=2,
        r1=10,
        path_regularize=2,
        path_batch_shrink=2,
    )  # fmt: skip; the checkout's own augmentation fails on torch 2.13
    G_optim, D_optim = (torch.optim.Adam(module.parameters(), lr=0.002) for module in (G, D))
    batches = list(itertools.islice(_endless(32), STEPS))
    train.train(args, batches, G, D, G_optim, D_optim, G_ema, "cpu")
    return [G, D, G_ema]


def taming() -> list[nn.Module]:
    lightning: Any = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = type("LightningModule", (nn.Module,), {"log": MagicMock(), "log_dict": MagicMock()})
    perceptual: Any = types.ModuleType("taming.modules.losses.lpips")
    perceptual.LPIPS = nn.Identity
    main: Any = types.ModuleType("main")
    sys.modules.update({"pytorch_lightning": lightning, perceptual.__name__: perceptual, "main": main})
    losses: Any = importlib.import_module("taming.modules.losses.vqperceptual")
    main.instantiate_from_config = lambda options: losses.VQLPIPSWithDiscriminator(**options)
    encoder = {
        "double_z": False, "z_channels": 8, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "dropout": 0.0,
    }  # fmt: skip
    vqgan: Any = importlib.import_module("taming.models.vqgan")
    model = vqgan.VQModel(encoder, {"disc_start": 0, "perceptual_weight": 0}, n_embed=16, embed_dim=8)
    model.learning_rate, model.global_step = 1e-3, 0
    optimizers, _ = model.configure_optimizers()
    for batch in itertools.islice(_endless(64), STEPS):
        for number, optimizer in enumerate(optimizers):  # as Lightning 1 does it
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for parameter in model.parameters():
                parameter.requires_grad_(id(parameter) in own)
            optimizer.zero_grad()
            model.training_step({"image": batch.permute(0, 2, 3, 1)}, 0, number).backward()
            optimizer.step()
        model.global_step += 1
    return [model.encoder, model.decoder, model.loss.discriminator]


LOOPS: dict[str, Callable[[], list[nn.Module]]] = {
    "KD_BIGGAN": biggan,
    "KD_LIGHTWEIGHT_GAN": lightweight_gan,
    "KD_FASTGAN": fastgan,
    "KD_R3GAN": r3gan,
    "KD_ROSINALITY": rosinality,
    "KD_TAMING": taming,
}

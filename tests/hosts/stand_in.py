"""A small checkout with the file names, function names and call order of the official ones, written for these tests.

`ada`: as stylegan2-ada-pytorch, whose setup function returns the options and whose loss takes `sync`.
`third`: as stylegan3, whose `launch_training` is given the options and whose loss takes `cur_nimg`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["write"]

UTIL = """
import importlib
class EasyDict(dict):
    def __getattr__(self, name): return self[name]
    def __setattr__(self, name, value): self[name] = value
def construct_class_by_name(*args, class_name, **kwargs):
    module, name = class_name.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(*args, **kwargs)
"""

STATS = """
values = {}
def report(name, value):
    import torch
    values.setdefault(name, []).append(float(torch.as_tensor(value, dtype=torch.float32).mean()))
    return value
"""

NETWORKS = """
import torch
class Generator(torch.nn.Module):
    def __init__(self, channel_base=4096, num_fp16_res=4):
        super().__init__()
        self.width, self.num_fp16_res, self.z_dim = channel_base, num_fp16_res, 4
        self.fc = torch.nn.Linear(4, 3 * 64)
    def forward(self, z): return self.fc(z).tanh().view(-1, 3, 8, 8)
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.out = torch.nn.Conv2d(3, 5, 3), torch.nn.Linear(5, 6), torch.nn.Linear(6, 1)
class Discriminator(torch.nn.Module):
    def __init__(self, channel_base=4096, num_fp16_res=4):
        super().__init__()
        self.b4 = Block()
    def forward(self, img, c, **others):
        return self.b4.out(self.b4.fc(self.b4.conv(img).relu().mean(dim=(2, 3))).relu())
"""

DATASET = """
import numpy as np
class Images:
    name, image_shape, label_dim = "100-shot-obama", [3, 8, 8], 0
    def __init__(self, path): self.path = path
    def __len__(self): return 16
    def __getitem__(self, k):
        return np.random.RandomState(k).randint(0, 256, (3, 8, 8)).astype(np.uint8), np.zeros([0], np.float32)
"""

LOSS = """
import torch
from torch_utils import training_stats
class StyleGAN2Loss:
    def __init__(self, device, G, D, r1_gamma=1.0):
        self.device, self.G, self.D, self.r1_gamma = device, G, D, r1_gamma
    def run_D(self, img, c, **others):
        return self.D(img + 0.01, c, **others)
    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, gain, OTHER):
        softplus = torch.nn.functional.softplus
        if phase in ("Gmain", "Gboth"):
            softplus(-self.run_D(self.G(gen_z), gen_c)).mean().mul(gain).backward()
        if phase in ("Dmain", "Dboth"):
            softplus(self.run_D(self.G(gen_z), gen_c)).mean().mul(gain).backward()
        if phase in ("Dmain", "Dreg", "Dboth"):
            real = real_img.detach().requires_grad_(phase != "Dmain")
            logits = self.run_D(real, real_c)
            loss = softplus(-logits) if phase != "Dreg" else 0
            if phase != "Dmain":
                (grad,) = torch.autograd.grad([logits.sum()], [real], create_graph=True)
                loss = loss + grad.square().sum([1, 2, 3]) * self.r1_gamma
            (logits * 0 + loss).mean().mul(gain).backward()
            training_stats.report("Loss/D/loss", logits)
"""

LOOP = """
import copy, json, os, pickle
import numpy as np
import torch
import dnnlib
from torch_utils import misc, training_stats
def setup_snapshot_image_grid(training_set):
    images = np.stack([training_set[k][0] for k in range(8)])
    return (4, 2), images, np.zeros([8, 0])
def training_loop(run_dir, training_set_kwargs, data_loader_kwargs, G_kwargs, D_kwargs, G_opt_kwargs, D_opt_kwargs,
                  loss_kwargs, batch_size, batch_gpu, total_kimg, resume_pkl=None, D_reg_interval=None, random_seed=0,
                  num_gpus=1, rank=0, metrics=[], image_snapshot_ticks=1, network_snapshot_ticks=1):
    device = torch.device("cuda", rank)
    torch.manual_seed(random_seed * num_gpus + rank)
    data = dnnlib.util.construct_class_by_name(**training_set_kwargs)
    sampler = misc.InfiniteSampler(data)
    loader = iter(torch.utils.data.DataLoader(data, sampler=sampler, batch_size=batch_size, **data_loader_kwargs))
    construct = dnnlib.util.construct_class_by_name
    G = construct(**G_kwargs).train().requires_grad_(False).to(device)
    D = construct(**D_kwargs).train().requires_grad_(False).to(device)
    if resume_pkl is not None:
        with open(resume_pkl, "rb") as file:
            saved = pickle.load(file)
        D.load_state_dict(saved["D"].state_dict()), G.load_state_dict(saved["G"].state_dict())
    loss = construct(device=device, G=G, D=D, **loss_kwargs)
    phases = []
    for name, module, options, interval in (("G", G, G_opt_kwargs, None), ("D", D, D_opt_kwargs, D_reg_interval)):
        options = dict(options)
        options["betas"] = [beta ** 0.9 if interval else beta for beta in options["betas"]]
        opt = construct(module.parameters(), **options)
        names = [(name + "both", 1)] if interval is None else [(name + "main", 1), (name + "reg", interval)]
        phases += [(phase, module, opt, every) for phase, every in names]
    grid_size, images, labels = setup_snapshot_image_grid(training_set=data)
    assert len(images) == grid_size[0] * grid_size[1]
    start = torch.cuda.Event(enable_timing=True)
    torch.randn(2).pin_memory()
    done, steps = 0, 0
    while done < total_kimg * 1000:
        real, real_c = next(loader)
        real, real_c = (real.to(device).float() / 127.5 - 1).split(batch_gpu), real_c.split(batch_gpu)
        for phase, module, opt, every in phases:
            if steps % every:
                continue
            start.record(torch.cuda.current_stream(device))
            opt.zero_grad(set_to_none=True)
            module.requires_grad_(True)
            for images, labels in zip(real, real_c):
                z = torch.randn(len(images), 4)
                loss.accumulate_gradients(phase=phase, real_img=images, real_c=labels, gen_z=z, gen_c=labels,
                                          gain=every, OTHER=0)
            module.requires_grad_(False)
            opt.step()
        done, steps = done + batch_size, steps + 1
    data = dict(G=copy.deepcopy(G), D=copy.deepcopy(D))
    if rank == 0:
        with open(os.path.join(run_dir, "network-snapshot-000000.pkl"), "wb") as file:
            pickle.dump(data, file)
        with open(os.path.join(run_dir, "stats.jsonl"), "w") as file:
            means = {name: dict(mean=sum(v) / len(v), num=len(v)) for name, v in training_stats.values.items()}
            file.write(json.dumps(means) + "\\n")
"""

MISC = """
import torch
class InfiniteSampler(torch.utils.data.Sampler):
    def __init__(self, dataset):
        super().__init__(dataset)
        self.dataset = dataset
    def __iter__(self):
        while True:
            yield from range(len(self.dataset))
"""

OPTIONS = """
def options(data, batch, seed, resume):
    E = dnnlib.util.EasyDict
    c = E(num_gpus=1, batch_size=batch, batch_gpu=2, total_kimg=0.04, random_seed=seed)
    c.training_set_kwargs = E(class_name="training.dataset.Images", path=data)
    c.data_loader_kwargs = E(num_workers=0, pin_memory=True)
    c.G_kwargs = E(class_name="training.networks.Generator", channel_base=4096)
    c.D_kwargs = E(class_name="training.networks.Discriminator", channel_base=4096, num_fp16_res=4)
    c.G_opt_kwargs = E(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8)
    c.D_opt_kwargs = E(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8)
    c.loss_kwargs = E(class_name="training.loss.StyleGAN2Loss", r1_gamma=1.0)
    c.D_reg_interval = REG
    if resume:
        c.resume_pkl = resume
    return c
def subprocess_fn(rank, c, temp_dir):
    training_loop.training_loop(rank=rank, **c)
def start(c, desc, outdir, dry_run):
    runs = len(os.listdir(outdir)) if os.path.isdir(outdir) else 0
    c.run_dir = os.path.join(outdir, f"{runs:05d}-{desc}")
    print(json.dumps(c))
    if not dry_run:
        os.makedirs(c.run_dir)
        subprocess_fn(rank=0, c=c, temp_dir="")
"""

TRAIN = (
    """
import json, os
import click
import dnnlib
from training import training_loop
"""
    + OPTIONS
    + """
FLAGS = [click.Option(["--outdir"], required=True), click.Option(["--data"], required=True),
         click.Option(["--batch"], type=int, default=4), click.Option(["--seed"], type=int, default=0),
         click.Option(["--resume"]), click.Option(["--dry-run", "-n"], is_flag=True)]
"""
)

ADA = """
def setup_training_loop_kwargs(data=None, batch=None, seed=None, resume=None):
    return "auto", options(data, batch, seed, resume)
@click.pass_context
def run(ctx, outdir, dry_run, **values):
    desc, c = setup_training_loop_kwargs(**values)
    start(c, desc, outdir, dry_run)
main = click.Command("main", callback=run, params=FLAGS)
"""

THIRD = """
def launch_training(c, desc, outdir, dry_run):
    start(c, desc, outdir, dry_run)
def run(outdir, dry_run, **values):
    launch_training(c=options(**values), desc="stylegan3-t", outdir=outdir, dry_run=dry_run)
main = click.Command("main", callback=run, params=FLAGS)
"""


def write(folder: Path, kind: str) -> Path:
    """The checkout `ada` or `third`, in a folder of its own."""
    other = "sync" if kind == "ada" else "cur_nimg"
    texts = {
        "dnnlib/__init__.py": "from . import util",
        "dnnlib/util.py": UTIL,
        "torch_utils/__init__.py": "",
        "torch_utils/misc.py": MISC,
        "torch_utils/training_stats.py": STATS,
        "training/__init__.py": "",
        "training/networks.py": NETWORKS,
        "training/dataset.py": DATASET,
        "training/loss.py": LOSS.replace("OTHER", other),
        "training/training_loop.py": LOOP.replace("OTHER", other),
        "train.py": (TRAIN + (ADA if kind == "ada" else THIRD)).replace("REG", "2" if kind == "ada" else "None"),
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder

"""On a CUDA device: the golden numbers, half precision, and whole runs. By hand: pytest -m gpu tests/gpu

KD_TEST_DEVICE=cpu runs what a CPU can do of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from torch import Tensor

from tests.host.conftest import drawings, run_train, stats_of  # noqa: F401
from tests.networks.conftest import numbers, official_d, official_g, parameter_names, weights  # noqa: F401
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from training.augment import AugmentPipe, DiffAugment, augpipe
from training.checkpoint import load_state
from training.networks.stylegan2 import Discriminator, Generator
from training.precision import set_precision

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("KD_TEST_DEVICE", "cuda")
ON_GPU = DEVICE != "cpu"


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def near(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((actual.cpu() - expected).abs().max() <= tolerance * expected.std())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_official_networks(official_g: Generator, official_d: Discriminator, numbers, layout) -> None:  # noqa: F811
    G, D = (network.to(DEVICE, memory_format=layout) for network in (official_g, official_d))
    z, c = numbers["z"].to(DEVICE), numbers["c"].to(DEVICE)
    images = G(z, c, noise_mode="const", force_fp32=True)
    assert near(images, numbers["G_ema_img_psi1"], 1e-3)
    x, labels = numbers["D_in"].to(DEVICE), numbers["D_in_c"].to(DEVICE)
    assert near(D(x, labels, force_fp32=True), numbers["D_logits_b8"], 1e-3)
    real = x[:4].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(real, labels[:4], force_fp32=True).sum(), real, create_graph=True)
    assert near(gradient.detach(), numbers["R1_grad_b4"], 1e-3)
    penalty = gradient.square().sum([1, 2, 3]).mean()
    grads = torch.autograd.grad(penalty, list(D.parameters()), allow_unused=True, materialize_grads=True)
    norms = torch.stack([grad.double().norm().cpu() for grad in grads])
    torch.testing.assert_close(norms, numbers["R1_param_grad_norm"].double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_near(official_g: Generator, official_d: Discriminator, numbers, precision) -> None:  # noqa: F811
    if precision == "fp16" and not ON_GPU:
        pytest.skip("a CPU computes fp16 in fp32")
    G, D = official_g.to(DEVICE), official_d.to(DEVICE)
    for network in (G, D):
        set_precision(network, precision)
    images = G(numbers["z"].to(DEVICE), numbers["c"].to(DEVICE), noise_mode="const")
    assert near(images, numbers["G_ema_img_psi1"], 0.05 if precision == "fp16" else 0.3)
    assert not near(images, numbers["G_ema_img_psi1"], 1e-5)  # it was taken
    logits = D(numbers["D_in"].to(DEVICE), numbers["D_in_c"].to(DEVICE))
    assert near(logits, numbers["D_logits_b8"], 0.05 if precision == "fp16" else 0.3)


def test_operators_and_their_derivatives() -> None:
    """float64 on the device against float64 on the CPU, to second order."""
    f = setup_filter([1, 3, 3, 1]).double()

    def work(x: Tensor, w: Tensor, b: Tensor, f: Tensor) -> Tensor:
        x = bias_act(conv2d_resample(x, w, f, up=2, padding=1), b, act="lrelu", clamp=1.5, scale=0.7)
        return upfirdn2d(conv2d_resample(x, w, f, down=2, padding=1), f, down=2, padding=2)

    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        x, w, b = (torch.randn(size, dtype=torch.float64) for size in ([2, 4, 6, 6], [4, 4, 3, 3], [4]))
        x, w, b = (tensor.to(device).requires_grad_(True) for tensor in (x, w, b))
        y = work(x, w, b, f.to(device))
        (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(gx.square().sum(), (x, w, b))
        found.append([tensor.detach().cpu() for tensor in (y, gx, *second)])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("name", ["bgc", "bgcfnc"])
def test_ada_is_differentiable_twice(name: str) -> None:
    pipe = AugmentPipe(**augpipe(name)).to(DEVICE)
    pipe.p.fill_(1.0)
    images = torch.randn(4, 3, 32, 32, device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad(pipe(images).square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert DiffAugment("color,translation,cutout")(images).shape == images.shape


def test_a_step_in_half_precision_learns(run_train: Callable[..., Result], tmp_path: Path) -> None:  # noqa: F811
    """fp16, distillation, ADA, LeCam, R1, path length, metrics; then the same run goes on."""
    flags = [
        f"--device={DEVICE}", "--kd=demo", "--kd-diversity=0.1", "--aug=ada", "--lecam=0.1", "--pl-weight=2",
        "--metrics=kid16_full", "--detector=demo", "--holdout=4", "--gamma=1", "--batch=8",
    ]  # fmt: skip
    result = run_train(*flags, "--kimg=0.4", "--tick=0.1", "--snap=2")
    assert result.exit_code == 0, result.output
    (run_dir,) = (tmp_path / "runs").iterdir()
    config = json.loads((run_dir / "config.json").read_text())
    assert config["precision"] == ("fp16" if ON_GPU else "fp32")
    if ON_GPU:
        assert config["kd"]["precision"] in ("fp32", "bf16")
        assert "Resources/peak_gpu_mem_gb" in stats_of(run_dir)[0]
    result = run_train(*flags, "--kimg=0.6", "--tick=0.1", "--snap=2", "--resume=latest")
    assert result.exit_code == 0, result.output
    assert load_state(run_dir)["parts"]["progress"]["nimg"] == 600
    assert all(line["Loss/D/loss"]["mean"] is not None for line in stats_of(run_dir))


def test_clip_in_bf16(tmp_path: Path) -> None:
    """A CLIP of OpenAI's architecture with random weights: bf16 on the device says what fp32 on the CPU says."""
    pytest.importorskip("ftfy")
    from kd_plugin import load_teacher
    from kd_plugin.teachers.clip_package import _load

    torch.manual_seed(0)
    model = _load("model").CLIP(64, 64, 2, 128, 16, 77, 49408, 64, 1, 2)
    torch.save(dict(model.float().state_dict()), tmp_path / "tiny.pt")
    images = torch.rand(6, 3, 48, 48) * 2 - 1
    exact = load_teacher(f"clip:{tmp_path / 'tiny.pt'}", torch.device("cpu"), "fp32")
    teacher = load_teacher(f"clip:{tmp_path / 'tiny.pt'}", torch.device(DEVICE), "bf16")
    a, b = exact.embed_images(images), teacher.embed_images(images.to(DEVICE)).float().cpu()
    assert F.cosine_similarity(a - a.mean(0), b - b.mean(0)).min() > 0.98
    texts = ["a photo of a cat", "a sketch"]
    a, b = exact.embed_texts(texts), teacher.embed_texts(texts).float().cpu()
    assert F.cosine_similarity(a, b).min() > 0.999


def test_nccl_with_one_process(run_train: Callable[..., Result], tmp_path: Path) -> None:  # noqa: F811
    """Two GPUs are not at hand: the group is made, used and left with one."""
    if not ON_GPU:
        pytest.skip("NCCL is for CUDA")
    from torch import distributed as dist

    from torch_utils.ranks import Ranks

    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = torch.ones(3, device=DEVICE)
        dist.all_reduce(x)
        assert x.tolist() == [1, 1, 1]
        votes = torch.ones(2, dtype=torch.int32)
        dist.all_reduce(votes)  # over gloo in the same group
        parts = [torch.ones(2, device=DEVICE), torch.zeros(3, 2, device=DEVICE)]
        flat = Ranks(0, 2)  # the arithmetic of two, the messages of one
        flat.average(parts)
        assert parts[0].tolist() == [0.5, 0.5]
    finally:
        dist.destroy_process_group()


def test_numbers_that_are_not_finite_are_told_one_call_later() -> None:
    from kd_plugin.finite_check import FiniteCheck

    check = FiniteCheck()
    fine, bad = torch.ones(3, device=DEVICE), torch.tensor([1.0, float("nan")], device=DEVICE)
    answers = [check(bad), check(fine), check(fine)]
    assert answers == ([True, False, True] if ON_GPU else [False, True, True])


def test_the_forms_of_distillation_and_their_resume(run_train: Callable[..., Result], tmp_path: Path) -> None:  # noqa: F811
    """Whitened targets, kept embeddings, two teachers, published forms: each runs, and goes on; and the probe."""
    forms = {
        "whiten": (
            "--kd=demo",
            "--kd-norm=whiten",
            "--kd-centre",
            "--kd-view=clean",
            "--kd-every=2",
            "--kd-warmup=0.1",
        ),
        "joint": ("--kd=demo+0.5*demo", "--kd-norm=standardise", "--kd-balance=1", "--kd-layer=b8.conv1,b4.fc"),
        "paper": ("--kd=demo", "--kd-variant=paper", "--kd-prompts=auto"),
        "release": ("--kd=demo", "--kd-variant=release"),
    }
    for name, flags in forms.items():
        outdir = f"--outdir={tmp_path / name}"
        assert run_train(outdir, f"--device={DEVICE}", "--holdout=4", "--kimg=0.064", *flags).exit_code == 0
        result = run_train(outdir, f"--device={DEVICE}", "--holdout=4", "--kimg=0.128", "--resume=latest", *flags)
        assert result.exit_code == 0, result.output
        (run_dir,) = (tmp_path / name).iterdir()
        assert "KD/explained_holdout" in stats_of(run_dir)[-1]
    assert run_train(f"--device={DEVICE}", "--kd=demo", "--kd-probe").exit_code == 0

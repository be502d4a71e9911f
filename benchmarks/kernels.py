"""The speed of the CUDA kernels, relative to copying memory and to plain torch.

    python -m benchmarks.kernels

Each row: milliseconds through plain torch, through the kernel, and the kernel's share of the speed at which the device
copies memory (2 x bytes / time of a large copy).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import click
import torch

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.build import kernels
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from torch_utils.stats import Stopwatch

SIZES = [(16, 64, 256, 256), (16, 128, 128, 128), (16, 256, 64, 64), (16, 512, 32, 32), (16, 512, 8, 8)]


def milliseconds(work: Callable[[], object], device: torch.device, rounds: int = 20) -> float:
    for _ in range(3):
        work()
    watch, times = Stopwatch(device), []
    for _ in range(rounds):
        with watch.running():
            work()
        times.append(watch.drain() * 1000)
    return statistics.median(times)


@click.command()
@click.option("--device", "name", default="cuda", show_default=True, help="cpu: small sizes, plain torch only")
def main(name: str) -> None:
    device = torch.device(name)
    on_gpu = device.type == "cuda"
    if on_gpu:
        kernels()
    large = torch.empty(2 ** (30 if on_gpu else 20), dtype=torch.uint8, device=device)
    copy = torch.empty_like(large)
    speed = 2 * large.numel() / milliseconds(lambda: copy.copy_(large), device)  # bytes a millisecond
    click.echo(f"{torch.cuda.get_device_name() if on_gpu else 'cpu'}, a copy moves {speed / 1e9:.2f} TB/s")
    click.echo(f"{'':46}{'torch, ms':>11}{'kernel, ms':>11}{'of a copy':>11}")
    f = setup_filter([1, 3, 3, 1], device=device)
    for dtype in (torch.float16, torch.float32) if on_gpu else (torch.float32,):
        for size in SIZES if on_gpu else [(2, 4, 16, 16)]:
            x = torch.randn(size, device=device, dtype=dtype)
            b = torch.randn(size[1], device=device, dtype=dtype)
            row(
                speed,
                f"bias_act {size} {dtype}",
                lambda impl, x=x, b=b: bias_act(x, b, act="lrelu", clamp=256, impl=impl),
                x,
            )
            for name, up, down, pad in (("filter", 1, 1, [2, 1, 2, 1]), ("up", 2, 1, [2, 1, 2, 1]), ("down", 1, 2, 1)):
                run = lambda impl, x=x, up=up, down=down, pad=pad: upfirdn2d(x, f, up, down, pad, impl=impl)  # noqa: E731
                row(speed, f"{name} {size} {dtype}", run, x)


def row(speed: float, name: str, run: Callable[[str], torch.Tensor], x: torch.Tensor) -> None:
    title = f"{name.replace('torch.', ''):46}"
    plain = milliseconds(lambda: run("ref"), x.device)
    if x.device.type != "cuda":
        click.echo(f"{title}{plain:>11.3f}{'-':>11}{'-':>11}")
        return
    moved = (x.numel() + run("cuda").numel()) * x.element_size()
    ours = milliseconds(lambda: run("cuda"), x.device)
    click.echo(f"{title}{plain:>11.3f}{ours:>11.3f}{moved / ours / speed:>11.0%}")


if __name__ == "__main__":
    main()

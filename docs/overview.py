"""docs/overview.png: where the teacher acts in a GAN. Drawn by `python docs/overview.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

GAN, TEACHER, TERM = "#e8e8e8", "#cfe0f3", "#f7e3bd"
GREY, BLUE = "#555555", "#2166ac"


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.7, height: float = 0.62) -> None:
    """Centred at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0.02,rounding_size=0.1", fc=colour, ec="#888888"))
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, dashed: bool = False) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "linestyle": "--" if dashed else "-"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def draw(path: Path) -> None:
    figure = Figure(figsize=(9.2, 3.6), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 13)
    axes.set_ylim(0, 5)
    axes.axis("off")
    box(axes, 1.2, 4.0, "training images", GAN)
    box(axes, 1.2, 2.6, "latents → G", GAN)
    box(axes, 4.2, 3.3, "augmentation", GAN)
    box(axes, 6.9, 3.3, "D, tapped layer", GAN, width=1.9)
    box(axes, 11.4, 3.3, "adversarial loss", GAN, width=2.0)
    box(axes, 4.2, 1.0, "CLIP, frozen", TEACHER)
    box(axes, 6.9, 1.9, "head", TERM, width=1.2)
    box(axes, 9.0, 1.0, "AGKD, CGKD\nloss of D", TERM, width=1.8, height=0.85)
    box(axes, 1.2, 1.0, "matching, critic\nloss of G", TERM, width=1.7, height=0.85)
    box(axes, 6.9, 0.35, "prompts", TEACHER, width=1.2, height=0.5)
    arrow(axes, (2.1, 4.0), (3.3, 3.45), GREY)
    arrow(axes, (2.1, 2.6), (3.3, 3.15), GREY)
    arrow(axes, (5.1, 3.3), (5.9, 3.3), GREY)
    arrow(axes, (7.9, 3.3), (10.35, 3.3), GREY)
    arrow(axes, (2.1, 3.85), (4.25, 1.36), BLUE)
    arrow(axes, (2.1, 2.45), (3.8, 1.36), BLUE)
    arrow(axes, (6.9, 2.95), (6.9, 2.25), BLUE)
    arrow(axes, (7.5, 1.8), (8.2, 1.4), BLUE)
    arrow(axes, (5.1, 1.0), (8.05, 1.0), BLUE)
    arrow(axes, (7.55, 0.4), (8.1, 0.65), BLUE)
    arrow(axes, (3.3, 1.0), (2.1, 1.0), BLUE)
    arrow(axes, (0.9, 1.45), (0.9, 2.25), BLUE, dashed=True)
    arrow(axes, (9.0, 1.46), (7.6, 2.95), BLUE, dashed=True)
    axes.text(1.0, 1.78, "gradient to G", fontsize=8, color=BLUE)
    axes.text(8.6, 2.15, "gradient to D", fontsize=8, color=BLUE)
    caption = "grey: your GAN, unchanged      blue: distillation, only during training"
    axes.text(3.3, 4.55, caption, fontsize=9, color=GREY)
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(__file__).with_name("overview.png"))

"""views.png: training images as they are, as D sees them, and as the teacher sees them, with what it says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_plugin.teachers.image_input import rgb
from kd_plugin.teachers.protocol import ShowsItsInput
from training.report.image_grid import save_image, to_pixels
from training.session import Session

__all__ = ["save_views"]

_SIDE = 128  # of a picture in the sheet, in pixels
_MARGIN = 8
_TEXT_WIDTH = 330
_PROMPTS = 3


@torch.no_grad()
def save_views(session: Session, path: Path, count: int = 6) -> None:
    """One row an image: itself, augmented, the teacher's input, and the prompts nearest to it (cosine).

    Draws from torch's generators: call it between steps, each of which seeds them anew.
    """
    real = torch.cat(list(session.dataset.images(limit=count))).to(session.device)
    seen = session.context.augment(real)
    columns, titles, texts = [real, seen], ["training image", "as D sees it"], [""] * len(real)
    if session.kd is not None:
        teacher = session.kd.teachers[0]
        shown = rgb(seen if session.kd.view == "seen" else real)
        columns.append(teacher.shown(shown) if isinstance(teacher, ShowsItsInput) else shown)
        titles.append("as the teacher sees it")
        texts = _nearest_prompts(session, shown)
    picture = _sheet([to_pixels(column) for column in columns], titles, texts)
    save_image(picture, path)


def _nearest_prompts(session: Session, images: Tensor) -> list[str]:
    """For each image its most similar prompts, a line each."""
    assert session.kd is not None
    bank = session.kd.prompts
    if bank is None:
        return [""] * len(images)
    embeddings = torch.nn.functional.normalize(bank.teacher.embed_images(images), dim=1)
    prompts = torch.nn.functional.normalize(bank.embeddings(embeddings.device).to(embeddings), dim=1)
    best = (embeddings @ prompts.T).topk(min(_PROMPTS, len(bank)), dim=1)
    return [
        "\n".join(f"{cosine:+.2f}  {bank.texts[index]}" for cosine, index in zip(cosines, indices, strict=True))
        for cosines, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _sheet(columns: list[np.ndarray], titles: list[str], texts: list[str]) -> np.ndarray:
    """Lays columns of uint8 [N, h, w, C] side by side, N texts at their right; uint8 [H, W, 3]."""
    step, head = _SIDE + _MARGIN, 28
    width = len(columns) * step + (_TEXT_WIDTH if any(texts) else 0) + _MARGIN
    sheet = Image.new("RGB", (width, head + len(texts) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, (title, pixels) in enumerate(zip(titles, columns, strict=True)):
        left = _MARGIN + column * step
        draw.text((left, 8), title, fill="black", font=font)
        for row, image in enumerate(pixels):
            picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
            picture = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, head + row * step))
    for row, text in enumerate(texts):
        draw.text((_MARGIN + len(columns) * step, head + row * step + 8), text, fill="black", font=font, spacing=8)
    return np.asarray(sheet)

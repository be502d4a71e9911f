"""`--data=demo`, `demo:5000`, `demo:5000@7`: drawings as a dataset in StyleGAN's layout."""

from __future__ import annotations

import io
import json
import os
import random
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.drawings.captions import caption
from training.drawings.family import KINDS, SERIES_LENGTH, draw

__all__ = ["DemoSpec", "write_demo_set"]

_FORM = re.compile(r"demo(?::(?P<count>\d+))?(?:@(?P<series>\d+))?")


@dataclass(frozen=True)
class DemoSpec:
    """How many drawings, of which series, and how large. Series 0 is the training set of the demo."""

    count: int = 100
    series: int = 0
    size: int = 32

    @classmethod
    def parse(cls, spec: str) -> Self | None:
        """`demo[:COUNT][@SERIES]`; None if `spec` does not begin like that.

        Raises:
            UserError: it begins with `demo:` or `demo@` but does not have this form.
        """
        if spec != "demo" and not spec.startswith(("demo:", "demo@")):
            return None
        match = _FORM.fullmatch(spec)
        given = {name: int(value) for name, value in match.groupdict().items() if value} if match else {}
        parsed = cls(**given)
        if match is None or not 1 <= parsed.count <= SERIES_LENGTH:
            raise UserError(
                f"--data: '{spec}' is not a demo set; give demo, or demo:COUNT@SEED such as demo:5000@7 "
                f"(1 to {SERIES_LENGTH} drawings)"
            )
        return parsed


def write_demo_set(path: str | os.PathLike[str], spec: DemoSpec) -> None:
    """Writes the drawings as an uncompressed zip. Equal arguments, equal pixels.

    dataset.json holds `labels` ([[file, class], ...], the class is the kind) and two additional keys that StyleGAN's
    reader ignores: `class_names` (position = class) and `captions` ([[file, caption], ...]). The file appears under
    its name only when it is complete.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, lambda partial: _write(partial, spec))


def _write(path: Path, spec: DemoSpec) -> None:
    labels: list[tuple[str, int]] = []
    captions: list[tuple[str, str]] = []
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
        for number in range(spec.count):
            drawing = draw(number, spec.series, spec.size)
            name = f"{number // 1000:05d}/img{number:08d}.png"
            encoded = io.BytesIO()
            Image.fromarray(drawing.pixels.transpose(1, 2, 0)).save(encoded, format="PNG")
            _add(archive, name, encoded.getvalue())
            labels.append((name, KINDS.index(drawing.attributes.kind)))
            captions.append((name, caption(drawing.attributes, random.Random(number).random)))
        meta = {"labels": labels, "class_names": KINDS, "captions": captions}
        _add(archive, "dataset.json", json.dumps(meta, indent=0).encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Stores one member under a fixed date: `writestr(name, ...)` would stamp it with the clock."""
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)

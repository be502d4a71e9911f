"""What a network file holds, in lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kd_plugin.teachers import split_spec
from training.checkpoint import Snapshot
from training.config import TrainConfig
from training.networks import model_of
from training.networks.interface import Network

__all__ = ["describe_networks"]

# Of a teacher's weights, by its whole name; from docs/teachers.md. A file may be anyone's.
LICENCES = {
    r"clip(:(ViT-[BL]/\d+(@336px)?|RN\d+(x\d+)?))?|hf:openai/clip-.*": "OpenAI, MIT with the code",
    r"demo": "this project's, MIT",
    r"hf:facebook/dinov2-.*": "Meta, Apache 2.0",
    r"hf:google/siglip-.*": "Google, Apache 2.0",
}
UNKNOWN_LICENCE = "not known to this program; see whoever published them"


def describe_networks(snapshot: Snapshot) -> list[str]:
    """Networks, sizes, kimg, data set, classes, options, teacher and its licence; as 'name  value' lines."""
    rows = [(role, _network(network)) for role, network in snapshot.networks.items()]
    rows += _training(snapshot.meta)
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _network(network: Network) -> str:
    weights = sum(tensor.numel() for tensor in network.parameters())
    images = f"{network.img_resolution}x{network.img_resolution}, {network.img_channels} channels"
    labels = f", {network.c_dim} classes" if network.c_dim else ""
    shown = ("img_resolution", "img_channels", "c_dim")
    rest = ", ".join(f"{name}={value}" for name, value in network.init_kwargs.items() if name not in shown)
    return f"{model_of(network)}, {images}{labels}, {weights / 1e6:.1f} M weights ({rest})"


def _training(meta: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if source := meta.get("source"):
        yield "from", f"an official file: {source['format']}"
        for name, value in source.get("data", {}).items():
            yield "data", f"{name}={value}"
        for role, reason in source.get("left_out", {}).items():
            yield role, f"left out: {reason}"
    if names := meta.get("class_names"):
        yield "classes", ", ".join(f"{index} {name}" for index, name in enumerate(names))
    if "nimg" in meta:
        yield "kimg", f"{meta['nimg'] / 1000:g}"
    if (p := meta.get("augment_p")) is not None:
        yield "augment p", f"{p:.3f}"
    config = meta.get("config")
    if not isinstance(config, Mapping):
        return
    yield "data", str(config.get("data"))
    defaults = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}
    options = {name: value for name, value in config.items() if name != "kd" and value != defaults.get(name)}
    yield "options", ", ".join(f"{name}={value}" for name, value in options.items())
    kd = config.get("kd")
    teacher = kd.get("teacher", "none") if isinstance(kd, Mapping) else "none"
    yield "teacher", teacher
    if teacher != "none":
        for _, spec in split_spec(teacher):
            licence = next((text for name, text in LICENCES.items() if re.fullmatch(name, spec)), UNKNOWN_LICENCE)
            yield "its weights", f"{spec}: {licence}"

"""G_ema in files that other programs run without this code: ONNX, and torch.export's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import UserError
from dnnlib.files import write_atomic
from training.networks import GeneratorNetwork

__all__ = ["EXPORTS", "export_onnx", "export_torch"]

OPSET = 18


class _Images(nn.Module):
    """z, the label if there is one, and psi to images, with the network's own noise."""

    def __init__(self, G: GeneratorNetwork) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: Tensor, c: Tensor | None, truncation_psi: Tensor) -> Tensor:
        G: Any = self.G
        if not G.has_w:
            images: Tensor = G(z, c, truncation_psi=truncation_psi)
            return images
        ws = G.mapping(z, c)
        ws = G.mapping.w_avg + truncation_psi * (ws - G.mapping.w_avg)
        # Fused, the batch is a number of groups, which these formats want as a constant.
        images = G.synthesis(ws, "const", True, fused_modconv=False)
        return images


class _Unlabelled(nn.Module):
    def __init__(self, G: GeneratorNetwork) -> None:
        super().__init__()
        self.images = _Images(G)

    def forward(self, z: Tensor, truncation_psi: Tensor) -> Tensor:
        images: Tensor = self.images(z, None, truncation_psi)
        return images


def _traceable(G: GeneratorNetwork) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """A module, one example of its inputs, and which of their axes may have any length."""
    batch = {0: torch.export.Dim("batch")}
    inputs, free = {"z": torch.zeros(2, G.z_dim)}, {"z": batch}
    if G.c_dim > 0:
        inputs["c"], free["c"] = torch.eye(G.c_dim)[[0, -1]], batch
    module = _Images(G) if G.c_dim > 0 else _Unlabelled(G)
    return module.eval(), {**inputs, "truncation_psi": torch.tensor(1.0)}, {**free, "truncation_psi": None}


def export_onnx(G: GeneratorNetwork, path: Path) -> None:
    """Writes a model with the inputs z [N, z_dim], c [N, c_dim] if G takes labels, and truncation_psi (a number), and
    the output images [N, C, R, R] in about [-1, 1]; N is any batch.

    Raises:
        UserError: a package is missing, or the network cannot be written in this form.
    """
    _require("onnx", "onnxscript")
    module, inputs, free = _traceable(G)
    with _quiet(), _explained("onnx"):
        program: Any = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["images"],
            dynamic_shapes=free,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        write_atomic(path, lambda partial: program.save(partial, external_data=False))


def export_torch(G: GeneratorNetwork, path: Path) -> None:
    """Writes what `torch.export.load(path).module()` reads: a module called as module(z, c, truncation_psi), or
    module(z, truncation_psi) without labels; see `export_onnx`.

    Raises:
        UserError: the network cannot be written in this form.
    """
    module, inputs, free = _traceable(G)
    with _quiet(), _explained("torch-export"):
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=free)
        write_atomic(path, lambda partial: torch.export.save(program, partial))


EXPORTS: Mapping[str, tuple[str, Callable[[GeneratorNetwork, Path], None]]] = {
    "onnx": (".onnx", export_onnx),
    "torch-export": (".pt2", export_torch),
}


def _require(*packages: str) -> None:
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--to=onnx: needs {' and '.join(missing)}; pip install {' '.join(missing)}")


@contextmanager
def _explained(form: str) -> Iterator[None]:
    try:
        yield
    except (torch.onnx.OnnxExporterError, torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        raise UserError(f"--to={form}: the network cannot be written in this form ({str(error)[:200]})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' remarks are about themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

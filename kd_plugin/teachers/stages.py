"""Intermediate features of a third-party image network: the outputs of its blocks, as maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["BlockOutputs", "find_blocks"]

# Where networks keep the blocks of their image side, by what the blocks are called here.
_LISTS = (
    ("block", "visual.transformer.resblocks"),  # OpenAI's CLIP, open_clip
    ("block", "visual.trunk.blocks"),  # open_clip, with a network of timm
    ("stage", "visual.trunk.stages"),
    ("block", "vision_model.encoder.layers"),  # transformers: CLIP, SigLIP
    ("block", "encoder.layer"),  # DINOv2
    ("stage", "encoder.stages"),  # convolutional ones
    ("block", "encoder.layers"),
    ("block", "model.layer"),  # DINOv3
    ("block", "layers"),  # ViT
)
_RESNET = ("layer1", "layer2", "layer3", "layer4")  # attributes of `visual`


def find_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The blocks of the network's image side, early to late, as block1, block2, ... or layer1, ...; {} if unknown."""
    for kind, path in _LISTS:
        blocks = _member(network, path)
        if isinstance(blocks, (nn.ModuleList, nn.Sequential)):
            return {f"{kind}{number}": block for number, block in enumerate(blocks, start=1)}
    layers = {name: _member(network, f"visual.{name}") for name in _RESNET}
    return {name: layer for name, layer in layers.items() if layer is not None} if all(layers.values()) else {}


class BlockOutputs:
    """Reads the outputs of blocks while the network runs.

    Args:
        blocks: by name, early to late.
    """

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        self._blocks = blocks
        self._image_dims: dict[str, int] = {}

    def learn_layout(self, run: Callable[[], Tensor], images: int) -> Tensor:
        """Find out in which dimension of each block's output the images are; returns what `run` returns.

        Args:
            run: runs the network on images.
            images: their number; not 1.
        """
        with self._watched(tuple(self._blocks)) as outputs:
            result = run()
        for name, output in outputs.items():
            dim = list(output.shape).index(images) if images in output.shape else -1
            if (output.ndim, dim) in ((4, 0), (3, 0), (3, 1)):
                self._image_dims[name] = dim
        return result

    @property
    def names(self) -> tuple[str, ...]:
        """Of the blocks whose outputs are maps or rows of tokens."""
        return tuple(self._image_dims)

    def during(self, run: Callable[[], Tensor], names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """What `run` returns, and the named blocks' outputs in it as maps, [N, C, h, w] each."""
        with self._watched(names) as outputs:
            result = run()
        return result, [as_map(outputs[name], self._image_dims[name]) for name in names]

    @contextmanager
    def _watched(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_block: nn.Module, _inputs: Any, output: Any) -> None:
                first = output if isinstance(output, Tensor) else output[0]
                if isinstance(first, Tensor):
                    outputs[name] = first

            return hook

        handles = [self._blocks[name].register_forward_hook(keep(name)) for name in names]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


def as_map(output: Tensor, image_dim: int) -> Tensor:
    """[N, C, h, w] of a block's output.

    Args:
        output: such a map already, or tokens [N, T, C] or [T, N, C]. The last h w = h h tokens are the places of the
            image, row by row; those before them (class token, registers) are left out.
        image_dim: the dimension of the images.
    """
    if output.ndim == 4:
        return output
    tokens = output.movedim(image_dim, 0)  # [N, T, C]
    side = math.isqrt(tokens.shape[1])
    return tokens[:, -side * side :].movedim(2, 1).reshape(len(tokens), -1, side, side)


def _member(network: nn.Module, path: str) -> nn.Module | None:
    found: Any = network
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None

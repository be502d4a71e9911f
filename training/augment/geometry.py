"""ADA geometry: seven transforms as one 3x3 matrix per image, and the resampling that executes it without aliasing.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from torch_utils.ops.grid_sample import grid_sample
from torch_utils.ops.upfirdn2d import downsample2d, upsample2d
from training.augment.draws import Draws
from training.augment.spec import AugmentSpec

__all__ = ["draw_inverse", "resample"]

# Low-pass filter of the sym6 wavelet (Daubechies 1992, table 6.3), scaled to unit sum. Times sqrt(2) it is orthonormal
# to its shifts by two, so upsampling and then downsampling with it gives the image back.
SYM6 = torch.tensor(
    [
        [0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633],
        [0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252],
        [-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148],
    ],
    dtype=torch.float64,
).flatten() / math.sqrt(2)
CENTRE = 5  # the tap on the filter's centre of mass: sample 2i of the doubled image lies on pixel i
RIM = 3  # pixels that the filter reaches beyond the image, on each side
DENSE_LIMIT = 512  # largest side for which filtering as a dense matrix product is the faster way (see `_doubled`)


def draw_inverse(spec: AugmentSpec, draws: Draws, height: int, width: int) -> Tensor:
    """One random transform per image: [N,3,3] float64, from output to input pixels, origin at the image's centre.

    Transforms are composed in the paper's order. The matrix kept is the inverse, for that is what sampling needs;
    hence each step is multiplied from the right and inverted.
    """
    inverse = torch.eye(3, dtype=torch.float64).repeat(draws.batch, 1, 1)
    if spec.xflip:
        mirrored = draws.choice(2).where(draws.gate(spec.xflip * draws.p), 0)
        inverse = inverse @ _scaling(1 - 2 * mirrored, torch.ones_like(mirrored))
    if spec.rotate90:
        quarters = draws.choice(4).where(draws.gate(spec.rotate90 * draws.p), 0)
        inverse = inverse @ _rotation(quarters * (math.pi / 2))
    if spec.xint:
        on = draws.gate(spec.xint * draws.p)
        x, y = ((draws.symmetric() * (spec.xint_max * side)).round().where(on, 0) for side in (width, height))
        inverse = inverse @ _translation(-x, -y)
    if spec.scale:
        log_factor = (draws.normal() * spec.scale_std).where(draws.gate(spec.scale * draws.p), 0)
        inverse = inverse @ _scaling((-log_factor).exp2(), (-log_factor).exp2())
    # Rotating before and after the anisotropic scaling, each with a probability that makes either one happen with p.
    once_of_two = 1 - math.sqrt(max(1 - spec.rotate * draws.p, 0))
    if spec.rotate:
        angle = (draws.symmetric() * (math.pi * spec.rotate_max)).where(draws.gate(once_of_two), 0)
        inverse = inverse @ _rotation(angle)
    if spec.aniso:
        log_factor = (draws.normal() * spec.aniso_std).where(draws.gate(spec.aniso * draws.p), 0)
        inverse = inverse @ _scaling((-log_factor).exp2(), log_factor.exp2())
    if spec.rotate and draws.percentile is None:  # a percentile is a statement about one rotation, not about two
        angle = (draws.symmetric() * (math.pi * spec.rotate_max)).where(draws.gate(once_of_two), 0)
        inverse = inverse @ _rotation(angle)
    if spec.xfrac:
        on = draws.gate(spec.xfrac * draws.p)
        x, y = ((draws.normal() * (spec.xfrac_std * side)).where(on, 0) for side in (width, height))
        inverse = inverse @ _translation(-x, -y)
    return inverse


def resample(images: Tensor, inverse: Tensor) -> Tensor:
    """Executes the transforms: reflect the borders, double, sample bilinearly, halve.

    Images whose matrix is the identity are passed on untouched, bit for bit; the others cost what the farthest of them
    needs in padding.

    Args:
        images: [N,C,H,W].
        inverse: [N,3,3] on the CPU, see `draw_inverse`.

    Returns:
        [N,C,H,W]. Zero where the reflected border (at most one more image on each side) does not reach.
    """
    moved = (inverse != torch.eye(3, dtype=inverse.dtype)).flatten(1).any(1)
    if moved.all():
        return _resample(images, inverse)
    if not moved.any():
        return images
    index = moved.nonzero().flatten()
    inverse = inverse[index]
    index = index.to(images.device, non_blocking=True)
    return images.index_copy(0, index, _resample(images.index_select(0, index), inverse))


def _resample(images: Tensor, inverse: Tensor) -> Tensor:
    height, width = images.shape[2:]
    left, right = _margins(inverse[:, 0], height, width, width)
    top, bottom = _margins(inverse[:, 1], height, width, height)
    doubled = _doubled(images, left, right, top, bottom)  # [N, C, 2 (top + H + bottom), 2 (left + W + right)]
    out = (2 * (height + 2 * RIM), 2 * (width + 2 * RIM))

    # From the sampler's output coordinates to pixels about the centre, through the transform, to the sampler's input
    # coordinates. Both are in [-1,1] from edge to edge.
    to_pixels = _sampler_to_pixels(out[1], RIM, width, out[0], RIM, height)
    from_pixels = _sampler_to_pixels(doubled.shape[3], left, width, doubled.shape[2], top, height).inverse()
    theta = (from_pixels @ inverse @ to_pixels)[:, :2].to(images, non_blocking=True)
    grid = functional.affine_grid(theta, [*images.shape[:2], *out], align_corners=False)
    sampled = grid_sample(doubled, grid)
    return _halved(sampled)


def _margins(row: Tensor, height: int, width: int, side: int) -> tuple[int, int]:
    """How far the batch samples beyond either end of one axis, in whole pixels: `row` [N,3] maps onto that axis."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-x, -y, 1], [x, -y, 1], [-x, y, 1], [x, y, 1]], dtype=row.dtype)
    reached = row @ corners.T  # [N, 4]
    beyond = torch.stack([-reached.min(), reached.max()]) - (side - 1) / 2 + 2 * RIM
    low, high = beyond.ceil().clamp(0, side - 1).int().tolist()  # a reflection cannot reach farther than the image
    return low, high


def _sampler_to_pixels(length_x: int, pad_x: int, width: int, length_y: int, pad_y: int, height: int) -> Tensor:
    """Coordinates of `grid_sample` in a doubled, padded image -> pixels of the image about its centre, [3,3]."""

    def axis(length: int, pad: int, side: int) -> tuple[float, float]:
        # index = ((g + 1) length - 1) / 2; pixel = index / 2 - pad; from the centre: - (side - 1) / 2
        return length / 4, (length - 1) / 4 - pad - (side - 1) / 2

    (ax, bx), (ay, by) = axis(length_x, pad_x, width), axis(length_y, pad_y, height)
    return torch.tensor([[ax, 0, bx], [0, ay, by], [0, 0, 1]], dtype=torch.float64)


# ---- Matrices, [N,3,3] ----------------------------------------------------------------------------------------------


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[[a, b, x], [c, d, y], [0, 0, 1]] from vectors [N]."""
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, x, c, d, y, zero, zero, one], dim=1).view(-1, 3, 3)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _matrix(x, zero, zero, y, zero, zero)


def _rotation(angle: Tensor) -> Tensor:
    """Takes the x axis (right) towards the y axis (down)."""
    zero = torch.zeros_like(angle)
    return _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos(), zero, zero)


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix(one, zero, zero, one, x, y)


# ---- Doubling and halving -------------------------------------------------------------------------------------------


def _doubled(images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pads by reflection and upsamples by two with the sym6 filter.

    Both act on rows and columns separately, so each side is one matrix. A dense product does more arithmetic than the
    filter needs, but as a matrix product. Doubling and halving, forward and backward, margins of half the side, CPU
    time on one core against the filter op: 0.18 of it at 64 pixels, 0.33 at 256, 0.56 at 512, 0.91 at 1024. The
    work per pixel grows with the side, hence a limit; on a GPU it is untested.
    """
    height, width = images.shape[2:]
    if max(height, width) <= DENSE_LIMIT:
        rows = _doubling_matrix(height, top, bottom).to(images, non_blocking=True)
        columns = _doubling_matrix(width, left, right).to(images, non_blocking=True)
        return rows @ images @ columns.T
    padded = functional.pad(images, (left, right, top, bottom), mode="reflect")
    return upsample2d(padded, SYM6.to(images), up=2)


def _halved(sampled: Tensor) -> Tensor:
    """The transpose of doubling without padding, cropped by the rim: [N,C,2(H+6),2(W+6)] -> [N,C,H,W]."""
    height, width = (side // 2 - 2 * RIM for side in sampled.shape[2:])
    if max(height, width) <= DENSE_LIMIT:
        rows = _halving_matrix(height, sampled.device, sampled.dtype)
        columns = _halving_matrix(width, sampled.device, sampled.dtype)
        return rows @ sampled @ columns.T
    return downsample2d(sampled, SYM6.to(sampled), down=2, padding=-2 * RIM, flip_filter=True)


def _doubling_matrix(side: int, low: int, high: int) -> Tensor:
    """[2 (low + side + high), side] float64: reflects by `low` and `high` pixels, then doubles with the sym6 filter."""
    padded = torch.arange(-low, side + high)
    source = (side - 1) - ((side - 1) - padded.abs()).abs()  # reflection about the first and the last pixel
    output = torch.arange(2 * len(padded))[:, None]
    tap = (output + CENTRE) % 2 + torch.arange(0, len(SYM6), 2)  # [2 total, 6]: the others fall on inserted zeros
    pixel = (output + CENTRE - tap) // 2
    weight = (2 * SYM6)[tap].where((pixel >= 0) & (pixel < len(padded)), 0)
    column = source[pixel.clamp(0, len(padded) - 1)]
    return torch.zeros(len(output), side, dtype=SYM6.dtype).scatter_add_(1, column, weight)


@functools.lru_cache(maxsize=8)
def _halving_matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[side, 2 (side + 6)]: the transpose of doubling, less its factor 2, read from within the rim."""
    doubling = _doubling_matrix(side + 2 * RIM, 0, 0)
    return (doubling[:, RIM : side + RIM].T / 2).to(device, dtype)

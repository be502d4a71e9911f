"""Any image network as a teacher: a TorchScript image tower and, beside it, a table of text embeddings.

It needs no class definition, no package and no text encoder; its prompts are the texts of the table.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_plugin.download import sha256_of
from kd_plugin.errors import PromptError, TeacherError, arg, nearest
from kd_plugin.file_kinds import what_it_is
from kd_plugin.teachers.base import Frozen, check_images, freeze, nearest_file
from kd_plugin.teachers.torchscript import is_torchscript, load_torchscript

__all__ = ["ScriptTeacher", "TextTable", "split_spec"]

# The side of the blank images that a tower is tried on when it is loaded.
_PROBE_SIZE = 64


def split_spec(spec: str) -> tuple[Path, Path | None]:
    """'TOWER.pt+TEXTS.npz' -> both paths; 'TOWER.pt' -> the tower alone.

    A '+' may also stand inside the names: of the places to cut, the last one that leaves an existing tower is taken.
    """
    if not spec.lower().endswith(".npz"):
        return Path(spec).expanduser(), None
    cuts = [index for index, char in enumerate(spec) if char == "+"]
    if not cuts:
        raise TeacherError(
            f"{arg('teacher', f'script:{spec}')}: a table of texts without an image tower; give TOWER.pt+TEXTS.npz"
        )
    options = [(Path(spec[:cut]).expanduser(), Path(spec[cut + 1 :]).expanduser()) for cut in reversed(cuts)]
    return next((option for option in options if option[0].is_file()), options[0])


class TextTable:
    """The texts a tower knows: row i of `embeddings` embeds `template` with its {} replaced by `names[i]`."""

    def __init__(self, path: Path, names: tuple[str, ...], embeddings: Tensor, template: str) -> None:
        self.path = path
        self.names = names
        self.embeddings = embeddings  # [P, E] float32
        self.template = template
        self._rows = {template.replace("{}", name): row for row, name in enumerate(names)}
        self._rows |= {name: row for row, name in enumerate(names)}  # where both readings exist, the plain name counts

    @classmethod
    def load(cls, path: Path, device: torch.device) -> TextTable:
        """Reads `names` (P strings), `embeddings` [P, E] and `prompt_template` (with one {}) from an .npz file.

        Raises:
            TeacherError: no such file, or another content.
        """
        if not path.is_file():
            raise TeacherError(f"{arg('teacher', 'script')}: there is no table of texts '{path}'{nearest_file(path)}")
        try:
            with np.load(path, allow_pickle=False) as table:  # with pickle, opening a table could run code
                names, embeddings, template = (table[key] for key in ("names", "embeddings", "prompt_template"))
        except (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise TeacherError(
                f"{arg('teacher', 'script')}: '{path}' is not a table of texts ({error}); it must hold the arrays "
                "names, embeddings "
                f"and prompt_template, without pickled objects{what_it_is(path)}"
            ) from error
        problem = _table_problem(names, embeddings, template)
        if problem:
            raise TeacherError(f"{arg('teacher', 'script')}: the table '{path}' cannot be used: {problem}")
        rows = torch.from_numpy(embeddings.astype(np.float32)).to(device)
        return cls(path, tuple(map(str, names)), rows, str(template))

    def row(self, text: str) -> int:
        """The row of a text, given as its name or in full, template included."""
        if text not in self._rows:
            raise PromptError(
                f"{arg('prompts')}: {text!r} is not among the {len(self.names)} texts of {self.path.name}"
                f"{nearest(text, self.names)}; give a name of the table, alone or as {self.template!r}",
                text,
            )
        return self._rows[text]


class ScriptTeacher(Frozen):
    """`script:TOWER.pt+TEXTS.npz`. The tower maps float32 [N, 3, H, W] in [-1, 1] to [N, E]; resizing is its own.

    It has stages if two more methods are exported: `stages(images) -> List[Tensor]`, maps [N, C, h, w] from early to
    late, and `embed_stages(stages)`, which makes the embedding from them. They are called stage1, stage2, ...
    """

    def __init__(self, spec: str, device: torch.device | str = "cpu") -> None:
        """Load tower and table, and test the tower on blank images.

        Loading a TorchScript file runs no Python code of it, but using it runs its TorchScript: take such files from
        where you would take a program.

        Raises:
            TeacherError: a file is missing or of another kind, or the two do not fit together.
        """
        tower_path, table_path = split_spec(spec)
        self.name = f"script:{spec}"
        self.network = _load_tower(tower_path, torch.device(device))
        probe = self._run(torch.zeros(2, 3, _PROBE_SIZE, _PROBE_SIZE, device=device), tower_path)
        self._device = probe.device
        self.embed_dim = int(probe.shape[1])
        self.stage_names = _stage_names(self.network, _ramp(device), tower_path)
        self._layout = _fastest_layout(self.network, bool(self.stage_names), _ramp(device))
        self._table = TextTable.load(table_path, self._device) if table_path else None
        if self._table and self._table.embeddings.shape[1] != self.embed_dim:
            raise TeacherError(
                f"{arg('teacher', self.name)}: the tower embeds in {self.embed_dim} numbers and the texts in "
                f"{self._table.embeddings.shape[1]}; give a tower and a table that were made together"
            )
        files = [path for path in (tower_path, table_path) if path]
        self.fingerprint = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The names in the table; empty if there is none."""
        return self._table.names if self._table else ()

    def embed_images(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> [N, E] float32; see `Teacher`."""
        check_images(images, self._device)
        with torch.autocast(self._device.type, enabled=False):
            embeddings: Tensor = self.network(self._laid_out(images))
        return embeddings.float()

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Sequence[Tensor]]:
        """As `embed_images`, and the stages `names`; see `HasStages`."""
        check_images(images, self._device)
        with torch.autocast(self._device.type, enabled=False):
            stages: list[Tensor] = self.network.stages(self._laid_out(images))
            embeddings: Tensor = self.network.embed_stages(stages)
        return embeddings.float(), [stages[self.stage_names.index(name)] for name in names]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """P names of the table, or the same in full ("a dog" for "dog" under the template "a {}") -> [P, E] float32."""
        if self._table is None:
            raise TeacherError(
                f"{arg('teacher', self.name)}: this teacher has no texts, which CGKD needs: give "
                f"{self.name}+TEXTS.npz, "
                f"or set {arg('cgkd', 0)}"
            )
        if not texts:
            raise PromptError(f"teacher '{self.name}' was given no prompt to embed; give texts with {arg('prompts')}")
        return self._table.embeddings[[self._table.row(text) for text in texts]]  # [P, E]

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.float().contiguous(memory_format=self._layout)

    @torch.no_grad()
    def _run(self, images: Tensor, path: Path) -> Tensor:
        try:
            embeddings = self.network(images)
        except RuntimeError as error:
            raise TeacherError(
                f"{arg('teacher', 'script')}: the tower '{path}' fails on images {list(images.shape)} "
                f"({_last_line(error)}); it must "
                "take float32 [N, 3, H, W] of any H and W"
            ) from error
        if not (isinstance(embeddings, Tensor) and embeddings.ndim == 2 and len(embeddings) == len(images)):
            given = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise TeacherError(
                f"{arg('teacher', 'script')}: the tower '{path}' turns images {list(images.shape)} into {given}; it "
                "must give [N, E]"
            )
        return embeddings


def _load_tower(path: Path, device: torch.device) -> Any:
    if not path.is_file():
        raise TeacherError(f"{arg('teacher', 'script')}: there is no image tower '{path}'{nearest_file(path)}")
    if not is_torchscript(path):
        raise TeacherError(
            f"{arg('teacher', 'script')}: '{path}' is not a TorchScript file; save the tower with "
            f"torch.jit.script(module).save(path){what_it_is(path)}"
        )
    try:
        tower = load_torchscript(path, device)
    except RuntimeError as error:
        raise TeacherError(
            f"{arg('teacher', 'script')}: the tower '{path}' cannot be read ({_last_line(error)}){what_it_is(path)}"
        ) from error
    return freeze(tower)


def _ramp(device: torch.device | str) -> Tensor:
    """Two images that are not blank."""
    return torch.linspace(-1, 1, 2 * 3 * _PROBE_SIZE**2, device=device).view(2, 3, _PROBE_SIZE, _PROBE_SIZE)


@torch.no_grad()
def _stage_names(tower: Any, images: Tensor, path: Path) -> tuple[str, ...]:
    if not (hasattr(tower, "stages") and hasattr(tower, "embed_stages")):
        return ()
    try:
        stages = tower.stages(images)
    except RuntimeError as error:
        raise TeacherError(
            f"{arg('teacher', 'script')}: stages() of the tower '{path}' fails on images {list(images.shape)} "
            f"({_last_line(error)}); it must take float32 [N, 3, H, W] of any H and W"
        ) from error
    if not (isinstance(stages, list) and all(isinstance(stage, Tensor) and stage.ndim == 4 for stage in stages)):
        shapes = [list(stage.shape) for stage in stages] if isinstance(stages, list) else type(stages).__name__
        raise TeacherError(
            f"{arg('teacher', 'script')}: the tower '{path}' has stages, but stages() gives {shapes} for images "
            f"{list(images.shape)}; it must give a list of maps [N, C, h, w]"
        )
    if not torch.allclose(tower.embed_stages(stages), tower(images), rtol=1e-3, atol=1e-4):
        raise TeacherError(
            f"{arg('teacher', 'script')}: the tower '{path}' has stages, but embed_stages(stages(images)) is not what "
            "it gives for the images"
        )
    return tuple(f"stage{number}" for number in range(1, len(stages) + 1))


@torch.no_grad()
def _fastest_layout(tower: Any, staged: bool, images: Tensor) -> torch.memory_format:
    """Of the images that the tower gets.

    On a CPU channels-last saves a convolutional tower up to 30 % of its time (docs/performance.md), but one that calls
    view() may not run with it: it is tried.
    """
    if images.device.type != "cpu":
        return torch.contiguous_format
    images = images.contiguous(memory_format=torch.channels_last)
    try:
        tower(images)
        if staged:
            tower.embed_stages(tower.stages(images))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def _table_problem(names: Any, embeddings: Any, template: Any) -> str:
    """What is wrong with a table, or ''."""
    if names.dtype.kind != "U" or names.ndim != 1 or names.size == 0:
        return f"names must be a list of strings, found {names.dtype} {list(names.shape)}"
    if embeddings.dtype.kind != "f" or embeddings.ndim != 2 or len(embeddings) != len(names):
        return f"embeddings must be floats [{len(names)}, E], found {embeddings.dtype} {list(embeddings.shape)}"
    if not np.isfinite(embeddings).all():
        return "embeddings holds numbers that are not finite"
    if len(set(names.tolist())) != len(names):
        return "names holds the same name twice"
    if template.dtype.kind != "U" or template.ndim != 0 or str(template).count("{}") != 1:
        return f"prompt_template must be one string with one {{}}, found {template!r}"
    return ""


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]

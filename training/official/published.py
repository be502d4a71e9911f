"""The networks that NVIDIA published for stylegan2-ada-pytorch, by name, and any other by its address."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kd_plugin.download import download
from kd_plugin.errors import nearest
from kd_plugin.file_kinds import what_it_is

__all__ = ["PUBLISHED", "is_published", "local_file", "meant"]

_PRETRAINED = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_SOURCES = {  # to start training from: as the official --resume names them
    "ffhq256": "ffhq-res256-mirror-paper256-noaug",
    "ffhq512": "ffhq-res512-mirror-stylegan2-noaug",
    "ffhq1024": "ffhq-res1024-mirror-stylegan2-noaug",
    "celebahq256": "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5",
    "lsundog256": "lsundog-res256-paper256-kimg100000-noaug",
}
_RESULTS = ("ffhq", "metfaces", "afhqcat", "afhqdog", "afhqwild", "cifar10", "brecahad")  # of the ADA paper
PUBLISHED = {
    **{name: f"{_PRETRAINED}/transfer-learning-source-nets/{file}.pkl" for name, file in _SOURCES.items()},
    **{name: f"{_PRETRAINED}/{name}.pkl" for name in _RESULTS},
}


def is_published(given: str) -> bool:
    """Whether `given` names a network to download: a published one, or an address."""
    return given in PUBLISHED or given.lower().startswith(("https://", "http://"))


def local_file(given: str, flag: str) -> Path:
    """Where the file is: downloaded once, into the cache.

    Raises:
        KDError: it cannot be downloaded, or is no pickle.
    """
    url = PUBLISHED.get(given, given)
    name = url.rpartition("/")[2] or "network"
    if given not in PUBLISHED:  # two addresses may end alike
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name[-80:]}"
    return download(
        url, name, problem_of=_problem_of, what=f"{flag}: {given}", instead="give a network file that you have"
    )


def meant(given: str) -> str:
    """'; did you mean ...' if a published name is near."""
    return nearest(given, PUBLISHED, exhaustive=False)


def _problem_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(9)
    if start[:1] == b"\x80" or start[8:] == b"{":
        return ""
    return what_it_is(path).removeprefix("; ") or "it is not a network"

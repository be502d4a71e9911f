"""Snapshots and states on disk."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dnnlib.errors import UserError
from training.checkpoint import STATE_NAME, load_snapshot, load_state, runs_with_state, save_snapshot, save_state
from training.networks.stylegan2 import Discriminator, Generator


def networks() -> dict[str, torch.nn.Module]:
    G = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=8, img_channels=3, mapping_layers=2, channel_max=8)
    return {
        "G": G,
        "G_ema": copy.deepcopy(G),
        "D": Discriminator(c_dim=0, img_resolution=8, img_channels=3, channel_max=8),
    }


def test_a_snapshot_rebuilds_its_networks(tmp_path: Path) -> None:
    made = networks()
    save_snapshot(tmp_path / "n.safetensors", made, {"nimg": 7})
    snapshot = load_snapshot(tmp_path / "n.safetensors", roles=("G", "D"))
    assert snapshot.meta["nimg"] == 7
    for role in ("G", "D"):
        state = snapshot.networks[role].state_dict()
        assert all(torch.equal(value, state[name]) for name, value in made[role].state_dict().items())
    with safe_open(tmp_path / "n.safetensors", "pt") as file:
        assert "G_ema.mapping.fc0.weight" in file.keys()  # noqa: SIM118


def test_messages(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"is a safetensors file, but not a snapshot of this trainer"):
        load_snapshot(tmp_path / "other.safetensors")
    save_snapshot(tmp_path / "d.safetensors", {"D": networks()["D"]}, {})
    with pytest.raises(UserError, match=r"holds D, but not G_ema"):
        load_snapshot(tmp_path / "d.safetensors")
    with pytest.raises(UserError, match=r"there is no training-state.pt in"):
        load_state(tmp_path)


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, {"nimg": 1})
    assert load_state(tmp_path)["nimg"] == 1
    content = (tmp_path / STATE_NAME).read_bytes()
    (tmp_path / STATE_NAME).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_state(tmp_path)
    save_state(tmp_path, {"format": 99})
    with pytest.raises(UserError, match=r"written by another version \(format 99"):
        load_state(tmp_path)


def test_a_state_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    torch.save({"format": 1, "bomb": Bomb()}, tmp_path / STATE_NAME)
    with pytest.raises(UserError, match="cannot be read"):
        load_state(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_runs_that_can_be_continued_newest_first(tmp_path: Path) -> None:
    for name in ("00000-cats", "00001-cats", "00002-cats-big", "00003-cats", "notes"):
        (tmp_path / name).mkdir()
    for name in ("00000-cats", "00001-cats", "00002-cats-big", "notes"):
        save_state(tmp_path / name, {})
    assert [path.name for path in runs_with_state(tmp_path)] == ["00002-cats-big", "00001-cats", "00000-cats"]
    assert runs_with_state(tmp_path / "nowhere") == []

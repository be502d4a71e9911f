"""Weights files: three containers, one teacher; what is damaged or holds code is refused, and nothing in it runs."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kd_plugin import download
from kd_plugin.errors import TeacherError
from kd_plugin.teachers import clip_files, load_teacher
from kd_plugin.teachers.clip_files import MODELS, find_weights, read_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]


def save_torchscript(model: nn.Module, path: Path) -> None:
    """As OpenAI's files are: a traced network with three numbers among its weights."""
    size = model.visual.input_resolution
    model = copy.deepcopy(model)
    for name, value in (("input_resolution", size), ("context_length", 77), ("vocab_size", 49408)):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    inputs = (torch.zeros(1, 3, size, size), torch.ones(1, 77, dtype=torch.int64))
    traced = torch.jit.trace(model, inputs, check_trace=False)
    traced.save(path)


@pytest.fixture(scope="module")
def files(tiny_vit: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {name: folder / name for name in ("script.pt", "state.pt", "state.safetensors", "half.pt")}
    weights = {name: value.clone() for name, value in tiny_vit.state_dict().items()}
    save_torchscript(tiny_vit, paths["script.pt"])
    torch.save(weights, paths["state.pt"])
    safetensors.torch.save_file(weights, paths["state.safetensors"])
    torch.save({name: value.half() for name, value in weights.items()}, paths["half.pt"])
    return paths


def test_every_container_gives_the_same_teacher(files: dict[str, Path], tiny_vit: nn.Module) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    teachers = {name: load_teacher(f"clip:{path}") for name, path in files.items()}
    expected = teachers["state.pt"].embed_images(images)
    for name in ("script.pt", "state.safetensors"):
        assert torch.equal(teachers[name].embed_images(images), expected)
        assert teachers[name].fingerprint == teachers["state.pt"].fingerprint
    torch.testing.assert_close(teachers["half.pt"].embed_images(images), expected, rtol=0.02, atol=0.02)
    assert teachers["half.pt"].embed_images(images).dtype == torch.float32
    assert teachers["state.pt"].name == f"clip:{files['state.pt']}"
    assert teachers["state.pt"].vocabulary is None


def test_the_archives_own_numbers_are_there_and_do_no_harm(files: dict[str, Path]) -> None:
    assert {"input_resolution", "context_length", "vocab_size"} <= set(read_weights(files["script.pt"]).tensors)


# ---- released models ----


def test_the_table_is_the_packages(clip_package_folder: Path) -> None:
    source = (clip_package_folder / "clip.py").read_text(encoding="utf-8")
    listed = dict(re.findall(r'"([^"]+)": "(https://[^"]+)"', source))
    assert {name: f"{clip_files._HOST}/{sha256}/{file}" for name, (file, sha256) in MODELS.items()} == listed


def test_a_released_model_is_fetched_checked_and_kept(
    files: dict[str, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = files["script.pt"].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / sha256).mkdir()
    (tmp_path / sha256 / "ViT-B-32.pt").write_bytes(content)
    monkeypatch.setitem(MODELS, "ViT-B/32", ("ViT-B-32.pt", sha256))
    monkeypatch.setattr(clip_files, "_HOST", tmp_path.as_uri())
    teacher = load_teacher("clip")
    assert teacher.name == "clip:ViT-B/32"
    assert teacher.fingerprint == load_teacher(f"clip:{files['state.pt']}").fingerprint
    monkeypatch.setattr(clip_files, "_HOST", "http://127.0.0.1:1")
    assert find_weights("ViT-B/32") == cache / "ViT-B-32.pt"


def test_no_internet_says_what_to_do_by_hand(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_files, "_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr(download, "_PAUSES_SEC", ())
    with pytest.raises(TeacherError) as caught:
        load_teacher("clip")
    url = f"http://127.0.0.1:1/{MODELS['ViT-B/32'][1]}/ViT-B-32.pt"
    assert str(caught.value).startswith(f"OpenAI CLIP ViT-B/32: could not download {url} (")
    assert str(caught.value).endswith(
        f"; put it at {cache / 'ViT-B-32.pt'}, or download that file by hand and pass --kd=clip:/path/to/ViT-B-32.pt"
    )


# ---- messages ----


def test_a_mistyped_name() -> None:
    with pytest.raises(
        TeacherError, match=r"--kd=clip:ViT-B-32: neither a released model nor a file; nearest: 'ViT-B/32'"
    ):
        load_teacher("clip:ViT-B-32")


def test_a_mistyped_path(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32.pt").touch()
    with pytest.raises(TeacherError, match=r"ViT-B32\.pt: there is no such file; nearest: 'ViT-B-32\.pt'"):
        load_teacher(f"clip:{tmp_path}/ViT-B32.pt")


def test_a_path_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.pt").touch()
    assert find_weights("~/mine.pt") == tmp_path / "mine.pt"


class Malicious:
    """Makes a directory when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("container", ["pickle", "torch", "disguised"])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, container: str) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "it_ran"
    content = {"visual.proj": Malicious(marker)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    if container == "disguised":  # looks like a TorchScript archive
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{archive.namelist()[0].split('/')[0]}/constants.pkl", pickle.dumps(Malicious(marker)))
    with pytest.raises(TeacherError, match=rf"--kd=clip:{path}: (not loaded, since it holds Python|cannot be read)"):
        load_teacher(f"clip:{path}")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))  # the trap itself works
    assert marker.exists()


@pytest.mark.parametrize("name", ["script.pt", "state.pt", "state.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files(files: dict[str, Path], tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    content = files[name].read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not found\n"}[damage])
    with pytest.raises(TeacherError, match=rf"--kd=clip:{path}: (cannot be read \(.+\); fetch|not loaded, since)"):
        load_teacher(f"clip:{path}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "weights": {"weight": torch.zeros(1)}}, "found: epoch, weights;"),
        (torch.zeros(3), "found: Tensor;"),
        ([1, 2], "found: list;"),
    ],
)
def test_something_else_than_a_state_dict(tmp_path: Path, content: Tensor | object, found: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=r"expected a state_dict .*; save model\.state_dict\(\) alone") as caught:
        load_teacher(f"clip:{tmp_path}/x.pt")
    assert found in str(caught.value)


@pytest.mark.parametrize("form", ["epoch_3.pt", "module.pt", "module.safetensors", "model.pt"])
def test_wrappers_are_taken_off(files: dict[str, Path], tmp_path: Path, form: str) -> None:
    """As open_clip, DataParallel and training loops save weights."""
    weights = torch.load(files["state.pt"])
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    content = {
        "epoch_3.pt": {"epoch": 3, "name": "run", "state_dict": wrapped},
        "model.pt": {"model": weights, "step": 1},
    }
    path = tmp_path / form
    if path.suffix == ".pt":
        torch.save(content.get(form, wrapped), path)
    else:
        safetensors.torch.save_file(wrapped, path)
    assert load_teacher(f"clip:{path}").fingerprint == load_teacher(f"clip:{files['state.pt']}").fingerprint


def test_the_names_of_transformers(tmp_path: Path) -> None:
    names = ("text_model.embeddings.token_embedding.weight", "vision_model.embeddings.patch_embedding.weight")
    safetensors.torch.save_file({name: torch.zeros(2) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(
        TeacherError, match=r"; it is weights of the transformers package: give the folder .* --kd=hf:FOLDER"
    ):
        load_teacher(f"clip:{tmp_path}/model.safetensors")

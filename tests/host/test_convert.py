"""convert.py: official files to snapshots and back, ONNX, torch.export, and what it says about a file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

import convert
import generate
from dnnlib.errors import UserError
from tests.official.stand_in import official_pickle, small_networks
from training.checkpoint import load_snapshot, save_snapshot
from training.networks import biggan
from training.networks.interface import GeneratorNetwork, Network
from training.official import published
from training.official.read import ROLES

PSI = 0.6


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the program is started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def networks() -> dict[str, Network]:
    return small_networks(3)


@pytest.fixture
def snapshot(there: Path, networks: dict[str, Network]) -> Path:
    path = there / "ours.safetensors"
    save_snapshot(path, networks, {"class_names": ["cat", "dog", "emu"], "nimg": 12_000, "config": CONFIG})
    return path


CONFIG = {"data": "pets.zip", "cfg": "low_shot", "gamma": 3.5, "kd": {"teacher": "clip+0.5*hf:facebook/dinov2-small"}}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(convert.main, [str(argument) for argument in arguments])


def test_an_official_file_becomes_a_snapshot(there: Path, networks: dict[str, Network]) -> None:
    (there / "metfaces.pkl").write_bytes(official_pickle(networks))
    result = run("metfaces.pkl")
    assert result.exit_code == 0, result.output
    assert "metfaces.safetensors" in result.output
    assert "holds G, D, G_ema" in result.output
    found = load_snapshot("metfaces.safetensors", roles=ROLES)
    for role in ROLES:
        for name, tensor in networks[role].state_dict().items():
            assert torch.equal(found.networks[role].state_dict()[name], tensor)
    images = generate.generate(network="metfaces.safetensors", seeds="0-1", class_="1", outdir="out").images
    again = generate.generate(network="metfaces.pkl", seeds="0-1", class_="1", outdir="again").images
    assert [path.read_bytes() for path in images] == [path.read_bytes() for path in again]


def test_a_discriminator_that_is_not_ours_does_not_stop_the_generator(
    there: Path, networks: dict[str, Network]
) -> None:
    networks["D"].get_submodule("b4").mbstd_group_size = "many"
    (there / "odd.pkl").write_bytes(official_pickle(networks))
    result = run("odd.pkl")
    assert result.exit_code == 0, result.output
    assert "holds G, G_ema" in result.output
    assert "D is left out: its D has mbstd_group_size many, which no official network has" in result.output
    with pytest.raises(UserError, match="holds G, G_ema, but not D"):
        load_snapshot("odd.safetensors", roles=ROLES)


def test_info(snapshot: Path) -> None:
    result = run(snapshot, "--info")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines() if not line.startswith("its"))
    assert "stylegan2, 16x16, 3 channels, 3 classes" in lines["G_ema"]
    assert lines["classes"] == "0 cat, 1 dog, 2 emu"
    assert lines["kimg"] == "12"
    assert lines["data"] == "pets.zip"
    assert "gamma=3.5" in lines["options"]
    assert "clip: OpenAI, MIT with the code" in result.output
    assert "hf:facebook/dinov2-small: Meta, Apache 2.0" in result.output


@pytest.mark.parametrize(
    ("teacher", "licence"),
    [
        ("clip:ViT-B/32", "OpenAI"),
        ("clip:RN50x4", "OpenAI"),
        ("clip:ViT-B-32.pt", "not known"),
        ("demo", "this project's"),
        ("hf:someone/clip", "not known"),
    ],
)
def test_a_licence_is_told_only_if_it_is_known(there: Path, teacher: str, licence: str) -> None:
    save_snapshot(there / "a.safetensors", small_networks(), {"config": {"kd": {"teacher": teacher}}})
    lines = run("a.safetensors", "--info").output.splitlines()
    assert next(line for line in lines if line.startswith("its weights")).split(": ")[-1].startswith(licence)


def tiny_biggan() -> GeneratorNetwork:
    G = biggan.Generator(z_dim=16, c_dim=4, img_resolution=16, img_channels=3, channels=16)
    return G.eval().requires_grad_(False)


GENERATORS: dict[str, Callable[[], Any]] = {
    "unconditional": lambda: small_networks()["G_ema"],
    "conditional": lambda: small_networks(3, num_fp16_res=2, conv_clamp=256)["G_ema"],
    "biggan": tiny_biggan,
}


def inputs(G: GeneratorNetwork, count: int) -> dict[str, torch.Tensor]:
    labels = {"c": torch.eye(G.c_dim)[torch.arange(count) % G.c_dim]} if G.c_dim else {}
    return {"z": torch.randn(count, G.z_dim), **labels, "truncation_psi": torch.tensor(PSI)}


@pytest.mark.parametrize("name", GENERATORS)
def test_onnx(there: Path, name: str) -> None:
    G = GENERATORS[name]()
    save_snapshot(there / "g.safetensors", {"G_ema": G}, {})
    result = run("g.safetensors", "--to=onnx")
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(there / "g.onnx")
    for count in (1, 3):
        given = inputs(G, count)
        (images,) = session.run(None, {name: value.numpy() for name, value in given.items()})
        expected = G(given["z"], given.get("c"), truncation_psi=PSI, noise_mode="const").numpy()
        assert np.abs(images - expected).max() < 1e-3
        assert expected.std() > 0.01


@pytest.mark.parametrize("name", GENERATORS)
def test_torch_export_needs_no_code_of_ours(there: Path, name: str) -> None:
    G = GENERATORS[name]()
    save_snapshot(there / "g.safetensors", {"G_ema": G}, {})
    assert run("g.safetensors", "--to=torch-export", "--out=elsewhere.pt2").exit_code == 0
    given = inputs(G, 3)
    torch.save(list(given.values()), there / "inputs.pt")
    program = """
        import torch
        images = torch.export.load("elsewhere.pt2").module()(*torch.load("inputs.pt"))
        torch.save(images, "images.pt")
    """
    subprocess.run([sys.executable, "-I", "-c", textwrap.dedent(program)], cwd=there, check=True)
    expected = G(given["z"], given.get("c"), truncation_psi=PSI, noise_mode="const")
    torch.testing.assert_close(torch.load(there / "images.pt"), expected, atol=1e-4, rtol=1e-4)


CLASSES = '''
class Module:
    """Keeps what it is given, and is pickled as a dictionary."""
    def __init__(self, **arguments):
        self.arguments = arguments
    def load_state_dict(self, state):
        self.state = {name: tensor.sum().item() for name, tensor in state.items()}
    def eval(self):
        return self
    def requires_grad_(self, needed):
        return self
    def __reduce__(self):
        return dict, ([("arguments", self.arguments), ("state", self.state)],)
class Generator(Module): pass
class Discriminator(Module): pass
'''


def checkout(folder: Path, networks: str = "networks.py", classes: str = CLASSES) -> Path:
    packages = [f"{name}/__init__.py" for name in ("torch_utils", "dnnlib", "training")]
    for name in (*packages, "torch_utils/persistence.py", "dnnlib/util.py", f"training/{networks}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(classes if networks in name else "")
    return folder


@pytest.mark.parametrize("names", ["networks.py", "networks_stylegan2.py"])
def test_the_checkouts_own_classes_make_the_official_file(
    there: Path, snapshot: Path, networks: dict[str, Network], names: str
) -> None:
    result = run(snapshot, "--to=official", f"--repo={checkout(there / 'repo', names)}")
    assert result.exit_code == 0, result.output
    content = pickle.loads((there / "ours.pkl").read_bytes())
    assert content.keys() == {*ROLES, "training_set_kwargs", "augment_pipe"}
    limits = {"channel_base": 128, "channel_max": 16, "num_fp16_res": 0, "conv_clamp": None}
    images = {"c_dim": 3, "img_resolution": 16, "img_channels": 3}
    synthesis = {**limits, "use_noise": True}
    nested = {"synthesis_kwargs": synthesis} if names == "networks.py" else synthesis
    latents = {"z_dim": 12, "w_dim": 10, "mapping_kwargs": {"num_layers": 2}}
    assert content["G_ema"]["arguments"] == {**images, **latents, **nested}
    assert content["D"]["arguments"] == {
        **images,
        **limits,
        "architecture": "resnet",
        "mapping_kwargs": {"num_layers": 8},
        "epilogue_kwargs": {"mbstd_group_size": 4},
    }
    for role in ROLES:
        expected = {name: tensor.sum().item() for name, tensor in networks[role].state_dict().items()}
        assert content[role]["state"] == expected


def test_a_checkout_that_fails_leaves_nothing(there: Path, snapshot: Path) -> None:
    repo = checkout(there / "repo", classes="raise ImportError('no module called cuda_ops')")
    result = run(snapshot, "--to=official", f"--repo={repo}")
    assert result.exit_code == 2
    assert "failed: ImportError: no module called cuda_ops" in result.output
    assert sorted(path.name for path in there.iterdir()) == ["ours.safetensors", "repo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pkl"], "FILE: 'nothing.pkl' does not exist"),
        (["metface"], "nearest: 'metfaces'"),
        (["ours.safetensors"], "--out: 'ours.safetensors' exists already"),
        (["ours.safetensors", "--out=a.txt"], "its name must end with .safetensors"),
        (["ours.safetensors", "--to=official"], "--to=official: give --repo=DIR"),
        (["ours.safetensors", "--to=official", "--repo=."], "--repo: '.' is no checkout"),
        (["ours.safetensors", "--to=onnx", "--repo=."], "--repo: --to=onnx needs no checkout"),
        (["ours.safetensors", "--to=onnx", "--out=ours.safetensors/a.onnx"], "--out"),
    ],
)
def test_mistakes(there: Path, snapshot: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert list(there.iterdir()) == [snapshot]


def test_only_stylegan2_is_official(there: Path) -> None:
    discriminator = biggan.Discriminator(c_dim=4, img_resolution=16, img_channels=3, channels=16)
    save_snapshot(there / "b.safetensors", {"G": tiny_biggan(), "D": discriminator, "G_ema": tiny_biggan()}, {})
    result = run("b.safetensors", "--to=official", f"--repo={checkout(there / 'repo')}")
    assert result.exit_code == 2
    assert "--to=official: the official programs have no biggan" in result.output


def test_published_networks(there: Path, networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by address; the cache stands in for the network."""
    asked = []

    def download(url: str, name: str, *, problem_of: Callable[[Path], str], **_: str) -> Path:
        asked.append((url, name))
        path = there / name
        path.write_bytes(official_pickle(networks))
        assert problem_of(path) == ""
        return path

    monkeypatch.setattr(published, "download", download)
    address = "https://example.org/models/cats.pkl"
    for given in ("ffhq256", "metfaces", address):
        assert load_snapshot(given).G_ema.z_dim == 12
    assert [url.rpartition("/")[2] for url, _ in asked] == [
        "ffhq-res256-mirror-paper256-noaug.pkl",
        "metfaces.pkl",
        "cats.pkl",
    ]
    assert asked[2][1].endswith("-cats.pkl")


def test_a_page_in_place_of_a_network(there: Path) -> None:
    (there / "page").write_text("<html>404</html>")
    assert "a web page" in published._problem_of(there / "page")


def test_from_python(there: Path, snapshot: Path) -> None:
    made = convert.convert(file=snapshot, to="snapshot", out=there / "again.safetensors")
    assert json.dumps(load_snapshot(made).meta) == json.dumps(load_snapshot(snapshot).meta)
    with pytest.raises(UserError, match=r"^to='official': give repo="):
        convert.convert(file=snapshot, to="official", out=there / "a.pkl")


def test_a_run_starts_from_an_official_pickle(run_train: Callable[..., Any], tmp_path: Path) -> None:
    """On the fly, and with everything taken over where the sizes agree."""
    assert run_train("--kimg=0.004").exit_code == 0
    (first,) = (tmp_path / "runs").glob("00000-*/network-snapshot-*.safetensors")
    networks = load_snapshot(first, roles=ROLES).networks
    (tmp_path / "official.pkl").write_bytes(official_pickle(networks))
    result = run_train("--kimg=0.004", f"--resume={tmp_path / 'official.pkl'}")
    assert result.exit_code == 0, result.output
    for role in ROLES:
        assert f"{role}: 100.0% of the weights taken over" in result.output
    result = run_train("--kimg=0.004", "--cmax=8", f"--resume={tmp_path / 'official.pkl'}")
    assert "the snapshot has --cmax=64, this run 8; to take over all, give --cmax=64" in result.output

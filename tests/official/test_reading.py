"""Networks read from official pickles make the images that the official code makes of them."""

from __future__ import annotations

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from tests.official.stand_in import official_pickle, small_networks, tensorflow_pickle
from training.checkpoint import load_snapshot, save_snapshot
from training.networks.interface import Network
from training.official.read import ROLES, is_pickle, read_official


def assert_same_weights(found: Network, expected: Network) -> None:
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        assert torch.equal(states[0][name], tensor), name


def written(folder: Path, content: bytes) -> Path:
    path = folder / "network-snapshot-000100.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pytorch(tmp_path: Path, protocol: int, c_dim: int) -> None:
    networks = small_networks(c_dim, num_fp16_res=2, conv_clamp=256)
    found, meta = read_official(written(tmp_path, official_pickle(networks, protocol)))
    assert list(found) == list(ROLES)
    for role, network in networks.items():
        assert_same_weights(found[role], network)
        assert not found[role].training
        assert found[role].init_kwargs == network.init_kwargs
    assert meta["source"]["data"]["path"] == "cats.zip"
    json.dumps(meta)


def test_what_the_layers_are_counts_and_not_a_checkouts_defaults(tmp_path: Path) -> None:
    """stylegan3 clamps and computes in float16 without being asked, and names its arguments otherwise."""
    networks = small_networks(num_fp16_res=3, conv_clamp=256)
    for network in networks.values():
        network.init_kwargs = {**network.init_kwargs, "conv_clamp": None}
    networks["D"].init_kwargs["num_fp16_res"] = 0
    for name, module in networks["D"].named_modules():  # as its constructor made it
        if hasattr(module, "conv_clamp") and not name.endswith("skip"):
            module.conv_clamp = 128
    found, _ = read_official(written(tmp_path, official_pickle(networks)))
    assert found["G_ema"].init_kwargs["conv_clamp"] == 256
    assert found["D"].init_kwargs["conv_clamp"] == 128


@pytest.mark.parametrize(("version", "c_dim"), [(4, 0), (5, 0), (5, 3)])  # version 4 has labels of another kind
def test_tensorflow(tmp_path: Path, version: int, c_dim: int) -> None:
    networks = small_networks(c_dim)
    found, meta = read_official(written(tmp_path, tensorflow_pickle(networks, version)))
    z, c = torch.randn(3, 12), torch.eye(3)[:, :c_dim]
    for role in ("G", "G_ema"):
        expected = networks[role](z, c, noise_mode="const", truncation_psi=0.5)
        torch.testing.assert_close(found[role](z, c, noise_mode="const", truncation_psi=0.5), expected)
    images = torch.randn(4, 3, 16, 16)
    labels = torch.eye(4)[:, :c_dim]
    torch.testing.assert_close(found["D"](images, labels), networks["D"](images, labels))
    assert found["G"].init_kwargs == networks["G"].init_kwargs
    assert meta["source"] == {"format": f"TensorFlow, version {version}"}


def test_every_program_reads_it_where_it_reads_a_snapshot(tmp_path: Path) -> None:
    networks = small_networks()
    snapshot = load_snapshot(written(tmp_path, official_pickle(networks)), roles=ROLES)
    assert_same_weights(snapshot.G_ema, networks["G_ema"])
    save_snapshot(tmp_path / "ours.safetensors", snapshot.networks, snapshot.meta)
    again = load_snapshot(tmp_path / "ours.safetensors", roles=ROLES)
    for role in ROLES:
        assert_same_weights(again.networks[role], networks[role])


def test_one_network_may_be_enough(tmp_path: Path) -> None:
    networks = small_networks()
    path = written(tmp_path, official_pickle({"G_ema": networks["G_ema"]}))
    assert list(read_official(path, ["G_ema"])[0]) == ["G_ema"]
    with pytest.raises(UserError, match=r"--resume: .*it holds G_ema, but not D"):
        read_official(path, ["G_ema", "D"], "--resume")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("activation", "relu", "synthesis.b4.conv1 has activation relu, expected lrelu"),
        ("architecture", "resnet", "synthesis.b4 has architecture resnet, expected skip"),
    ],
)
def test_what_this_trainer_does_not_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, value: str, reason: str
) -> None:
    from tests.official import stand_in

    before = stand_in.saved

    def changed(module: Any, extra: Any = None) -> Any:
        made = before(module, extra)
        if attribute in made.state and made.kind in ("SynthesisLayer", "SynthesisBlock"):
            made.state[attribute] = value
        return made

    monkeypatch.setattr(stand_in, "saved", changed)
    path = written(tmp_path, official_pickle(small_networks()))
    with pytest.raises(UserError, match=re.escape(reason)):
        read_official(path)


def test_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    networks = small_networks()
    networks["G_ema"].state_dict()["mapping.fc0.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"mapping\.fc0\.weight holds what is not a finite number"):
        read_official(written(tmp_path, official_pickle(networks)))


def test_a_file_of_torch_is_told_apart(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(
        UserError, match=r"it holds no networks, but a value of the type int; it is weights or a checkpoint saved by"
    ):
        load_snapshot(tmp_path / "old.pth")


def test_what_is_a_pickle(tmp_path: Path) -> None:
    assert is_pickle(written(tmp_path, pickle.dumps(1)))
    for content in (b"", b"\x80", b"PK\x03\x04", b"\x89PNG", b"\x80\x09"):
        assert not is_pickle(written(tmp_path, content))


def test_tensors_keep_what_torch_pickled(tmp_path: Path) -> None:
    """Views, transposed storage, half and double precision."""
    from training.official.contents import read_pickle

    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "view": base[1:3, ::2],
        "transposed": base.T,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": torch.nn.Parameter(base.double()),
        "empty": torch.empty(0, 3),
        "number": torch.tensor(2.5),
        "integers": torch.arange(3),
    }
    raw = pickle.dumps({**content, "array": np.arange(6.0).reshape(2, 3).T, "scalar": np.float32(1.5)})
    found = read_pickle(io.BytesIO(raw), len(raw))
    for name, tensor in content.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
    assert np.array_equal(found["array"].values, np.arange(6.0).reshape(2, 3).T)
    assert found["scalar"] == 1.5


@pytest.mark.parametrize(
    ("where", "attribute", "value", "reason"),
    [
        ("synthesis.b16.conv1", "conv_clamp", 128, "synthesis.b16.conv1 has conv_clamp 128, expected 256"),
        ("synthesis.b8.torgb", "conv_clamp", None, "synthesis.b8.torgb has conv_clamp None, expected 256"),
        ("mapping.fc1", "activation", "relu", "mapping.fc1 has activation relu, expected lrelu"),
        ("synthesis.b8.conv0.affine", "bias_gain", 2.0, "synthesis.b8.conv0.affine scales its weights in another way"),
    ],
)
def test_every_layer_is_looked_at(tmp_path: Path, where: str, attribute: str, value: Any, reason: str) -> None:
    networks = small_networks(num_fp16_res=2, conv_clamp=256)
    setattr(networks["G_ema"].get_submodule(where), attribute, value)
    with pytest.raises(UserError, match=re.escape(reason)):
        read_official(written(tmp_path, official_pickle(networks)), ["G_ema"])


@pytest.mark.parametrize("value", ["256", -1, float("nan"), True, {"a"}])
def test_an_option_of_another_kind(tmp_path: Path, value: Any) -> None:
    networks = small_networks()
    for module in networks["G_ema"].modules():
        if hasattr(module, "conv_clamp"):
            module.conv_clamp = value
    with pytest.raises(UserError, match=r"its G_ema has conv_clamp .*, which no official network has"):
        read_official(written(tmp_path, official_pickle(networks)), ["G_ema"])


def test_float16_where_its_name_does_not_say_so(tmp_path: Path) -> None:
    """The blocks count, and not the argument; and they must be the highest ones."""
    networks = small_networks(num_fp16_res=1)
    networks["G_ema"].init_kwargs["num_fp16_res"] = 0
    path = written(tmp_path, official_pickle(networks))
    assert read_official(path, ["G_ema"])[0]["G_ema"].init_kwargs["num_fp16_res"] == 1
    networks["G_ema"].get_submodule("synthesis.b8").dtype = torch.float16
    networks["G_ema"].get_submodule("synthesis.b16").dtype = torch.float32
    with pytest.raises(UserError, match=r"synthesis\.b8 has use_fp16 True, which does not fit the others"):
        read_official(written(tmp_path, official_pickle(networks)), ["G_ema"])


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("normalize_latents", False, "it has normalize_latents False, expected True"),
        ("mapping_nonlinearity", "relu", "it has mapping_nonlinearity relu, expected lrelu"),
        ("resample_kernel", [1, 2, 1], "it has resample_kernel a list, expected [1, 3, 3, 1]"),
        ("use_noise", False, "it has use_noise False, but not the variables for that"),
        ("architecture", "orig", "it has architecture orig, but the variables of skip"),
        ("use_attention", True, "it has the option use_attention, which this trainer does not know"),
        ("mapping_lrmul", -1, "it has mapping_lrmul -1"),
        ("conv_clamp", "abc", "its G has conv_clamp abc, which no official network has"),
    ],
)
def test_options_of_tensorflow_that_make_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: Any, reason: str
) -> None:
    changed_options(monkeypatch, {option: value})
    path = written(tmp_path, tensorflow_pickle(small_networks()))
    with pytest.raises(UserError, match=re.escape(reason)):
        read_official(path, ["G"])


def test_the_learning_rate_multiplier_of_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times ours: weights that are ten times smaller make the same network."""
    networks = small_networks()
    expected = networks["G_ema"](torch.ones(2, 12), noise_mode="const")
    for name, tensor in networks["G_ema"].state_dict().items():
        if name.startswith("mapping.fc"):
            tensor.div_(10)
    changed_options(monkeypatch, {"mapping_lrmul": 0.1})
    found, _ = read_official(written(tmp_path, tensorflow_pickle(networks)), ["G_ema"])
    torch.testing.assert_close(found["G_ema"](torch.ones(2, 12), noise_mode="const"), expected)


def test_labels_of_the_first_tensorflow_release_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It multiplies them by a matrix, without a bias, and normalises after joining them to z."""
    from tests.official import stand_in

    before = stand_in._mapping

    def changed(name: list[str], value: np.ndarray) -> tuple[str, np.ndarray]:
        theirs, values = before(name, value)
        return theirs.replace("LabelEmbed", "LabelConcat"), values

    monkeypatch.setattr(stand_in, "_mapping", changed)
    path = written(tmp_path, tensorflow_pickle(small_networks(3), version=4))
    with pytest.raises(UserError, match="it has the variable mapping/LabelConcat/"):
        read_official(path, ["G"])


def changed_options(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """Those of TensorFlow's networks, in the files that are written from now on."""
    from tests.official import stand_in

    before = stand_in._network
    monkeypatch.setattr(
        stand_in, "_network", lambda given, *rest: before({**given, **options} if given else given, *rest)
    )

"""A teacher's stages are the features that the network itself computes, as maps with the image's places in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kd_plugin.errors import TeacherError
from kd_plugin.teachers import load_teacher, load_teachers
from kd_plugin.teachers.openai_clip import OpenAIClip
from kd_plugin.teachers.protocol import HasStages
from kd_plugin.teachers.stages import BlockOutputs, find_blocks
from tests.teachers.test_hf import clip_folder, dino_folder, siglip_folder  # noqa: F401

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def staged(teacher: object) -> HasStages:
    assert isinstance(teacher, HasStages)
    return teacher


def test_of_a_vision_transformer_the_tokens_of_the_places(tiny_vit: nn.Module) -> None:
    teacher = staged(OpenAIClip.from_state_dict(tiny_vit.state_dict(), "tiny"))
    assert teacher.stage_names == ("block1", "block2")
    visual, shown = tiny_vit.visual, teacher._preprocess(IMAGES)
    with torch.no_grad():
        patches = visual.conv1(shown).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([visual.class_embedding.expand(3, 1, -1), patches], dim=1) + visual.positional_embedding
        tokens = visual.ln_pre(tokens).transpose(0, 1)
        expected = []
        for block in visual.transformer.resblocks:
            tokens = block(tokens)
            expected.append(torch.stack([tokens[1 + place] for place in range(16)], dim=2).view(3, 64, 4, 4))
        embeddings, stages = teacher.embed_with_stages(IMAGES, teacher.stage_names)
        torch.testing.assert_close(list(stages), expected)
        assert torch.equal(embeddings, teacher.embed_images(IMAGES))
        _, (last,) = teacher.embed_with_stages(IMAGES, ["block2"])
        assert torch.equal(last, stages[1])


def test_of_a_resnet_its_layers(tiny_resnet: nn.Module) -> None:
    teacher = staged(OpenAIClip.from_state_dict(tiny_resnet.state_dict(), "tiny"))
    assert teacher.stage_names == ("layer1", "layer2", "layer3", "layer4")
    visual, features = tiny_resnet.visual, teacher._preprocess(IMAGES)
    with torch.no_grad():
        for number in (1, 2, 3):
            features = getattr(visual, f"relu{number}")(
                getattr(visual, f"bn{number}")(getattr(visual, f"conv{number}")(features))
            )
        features, expected = visual.avgpool(features), []
        for name in teacher.stage_names:
            features = getattr(visual, name)(features)
            expected.append(features)
        torch.testing.assert_close(list(teacher.embed_with_stages(IMAGES, teacher.stage_names)[1]), expected)


@pytest.mark.parametrize(
    ("folder", "others", "places"), [("clip_folder", 1, 4), ("dino_folder", 1, 4), ("siglip_folder", 0, 4)]
)
def test_of_transformers_the_hidden_states(
    folder: str, others: int, places: int, request: pytest.FixtureRequest
) -> None:
    """Class tokens and registers stand before the places."""
    path = request.getfixturevalue(folder)
    teacher = staged(load_teacher(f"hf:{path}"))
    assert teacher.stage_names == ("block1", "block2")
    model = teacher.network
    with torch.no_grad():
        shown = teacher._preprocess(IMAGES)
        hidden = getattr(model, "vision_model", model)(pixel_values=shown, output_hidden_states=True).hidden_states
        _, stages = teacher.embed_with_stages(IMAGES, teacher.stage_names)
    for states, stage in zip(hidden[1:], stages, strict=True):
        assert stage.shape == (3, 32, places, places)
        for place in (0, 1, places * places - 1):
            torch.testing.assert_close(stage[:, :, place // places, place % places], states[:, others + place])


def test_gradients_reach_the_images(tiny_vit: nn.Module) -> None:
    teacher = staged(OpenAIClip.from_state_dict(tiny_vit.state_dict(), "tiny"))
    images = IMAGES.clone().requires_grad_()
    _, (stage,) = teacher.embed_with_stages(images, ["block1"])
    stage.square().mean().backward()
    assert images.grad.abs().sum(dim=(1, 2, 3)).min() > 0
    assert not teacher.network.visual.transformer.resblocks[0]._forward_hooks


class Trunk(nn.Module):
    """Of the blocks' outputs, a tuple, a row of numbers and a pair without a tensor, which are no stages, and a map."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x * 2, 1

    class Sizes(nn.Module):
        def forward(self, x: Tensor) -> tuple[int, int]:
            return x.shape[2], x.shape[3]

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = nn.Module()
        self.visual.trunk.blocks = nn.Sequential(self.Pair(), nn.Identity(), nn.Identity(), self.Sizes())

    def forward(self, x: Tensor) -> Tensor:
        pair, row, image, sizes = self.visual.trunk.blocks
        sizes(x)
        tokens = pair(x.flatten(2).transpose(1, 2))[0]
        return row(tokens.mean(dim=1)) + image(x).mean()


def test_outputs_that_are_no_maps_are_left_out() -> None:
    network, images = Trunk(), torch.rand(2, 3, 4, 4)
    blocks = BlockOutputs(find_blocks(network))
    result = blocks.learn_layout(lambda: network(images), 2)
    assert blocks.names == ("block1", "block3")
    again, (tokens, image) = blocks.during(lambda: network(images), blocks.names)
    assert torch.equal(again, result)
    assert torch.equal(tokens, images * 2)
    assert torch.equal(image, images)


def test_a_network_of_another_kind_has_no_stages() -> None:
    assert find_blocks(nn.Sequential(nn.Conv2d(3, 4, 1))) == {}


class StagedTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(5, 3))

    @torch.jit.export
    def stages(self, images: Tensor) -> list[Tensor]:
        first = nn.functional.avg_pool2d(images, 4)
        return [first, nn.functional.avg_pool2d(first, 2)]

    @torch.jit.export
    def embed_stages(self, stages: list[Tensor]) -> Tensor:
        return stages[1].mean(dim=[2, 3]) @ self.weight.T

    def forward(self, images: Tensor) -> Tensor:
        return self.embed_stages(self.stages(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_exports_its_stages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.jit.script(StagedTower()).save(tmp_path / "tower.pt")
    teacher = staged(load_teacher(f"script:{tmp_path}/tower.pt"))
    assert teacher.stage_names == ("stage1", "stage2")
    embeddings, (second, first) = teacher.embed_with_stages(IMAGES, ["stage2", "stage1"])
    assert torch.equal(embeddings, teacher.embed_images(IMAGES))
    torch.testing.assert_close(first, nn.functional.avg_pool2d(IMAGES, 4))
    torch.testing.assert_close(second, nn.functional.avg_pool2d(IMAGES, 8))
    ((_, scrambled),) = load_teachers(f"script:{tmp_path}/tower.pt", control="scramble")  # its weights are buffers
    assert not torch.equal(scrambled.network.weight, teacher.network.weight)
    assert torch.equal(*(t.network.weight.flatten().sort().values for t in (scrambled, teacher)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_whose_stages_are_of_another_kind(tmp_path: Path) -> None:
    class Odd(StagedTower):
        @torch.jit.export
        def stages(self, images: Tensor) -> list[Tensor]:
            return [images.mean(dim=[2, 3]), images]

    torch.jit.script(Odd()).save(tmp_path / "tower.pt")
    with pytest.raises(TeacherError, match=r"stages\(\) gives .*; it must give a list of maps \[N, C, h, w\]"):
        load_teacher(f"script:{tmp_path}/tower.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_whose_stages_do_not_make_the_embedding(tmp_path: Path) -> None:
    class Odd(StagedTower):
        @torch.jit.export
        def embed_stages(self, stages: list[Tensor]) -> Tensor:
            return stages[0].mean(dim=[2, 3]) @ self.weight.T

        def forward(self, images: Tensor) -> Tensor:
            return self.embed_stages(self.stages(images)) * 5

    torch.jit.script(Odd()).save(tmp_path / "tower.pt")
    with pytest.raises(TeacherError, match=r"embed_stages\(stages\(images\)\) is not what it gives for the images"):
        load_teacher(f"script:{tmp_path}/tower.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_whose_stages_fail(tmp_path: Path) -> None:
    class Odd(StagedTower):
        @torch.jit.export
        def stages(self, images: Tensor) -> list[Tensor]:
            return [images.view(-1, 3, 224, 224)]

        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=[2, 3])

    torch.jit.script(Odd()).save(tmp_path / "tower.pt")
    with pytest.raises(TeacherError, match=r"stages\(\) of the tower .* fails on images \[2, 3, 64, 64\]"):
        load_teacher(f"script:{tmp_path}/tower.pt")

"""Networks of transformers as teachers: tiny random ones, saved and loaded as real ones are."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.teachers import load_teacher

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["a", "photo", "of", "cat", "dog", "the", "sketch"]


def save_preprocessing(folder: Path, **config: object) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def save_tokenizer(folder: Path, length: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length,
    )  # fmt: skip
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "clip"
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**SMALL, "vocab_size": 11, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1,
                     "pad_token_id": 0},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(folder)
    save_preprocessing(
        folder, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=True, resample=3,
        image_mean=[0.48, 0.45, 0.40], image_std=[0.26, 0.26, 0.27],
    )  # fmt: skip
    save_tokenizer(folder, 8)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "dino"
    torch.manual_seed(1)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    save_preprocessing(
        folder, size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "siglip"
    torch.manual_seed(2)
    config = transformers.SiglipConfig(
        text_config={**SMALL, "vocab_size": 11, "max_position_embeddings": 8},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
    )
    transformers.SiglipModel(config).save_pretrained(folder)
    save_preprocessing(folder, size={"height": 32, "width": 32}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    save_tokenizer(folder, 8)
    return folder


def pil_pixels(image: np.ndarray, side: int, crop: int, mean: list[float], std: list[float], mode: int) -> torch.Tensor:
    """[1, 3, crop, crop], prepared by PIL for one 8-bit image [H, W, 3]."""
    picture = Image.fromarray(image)
    short = min(picture.size)
    picture = picture.resize([round(length * side / short) for length in picture.size], mode)
    left, top = (picture.width - crop) // 2, (picture.height - crop) // 2
    pixels = np.asarray(picture.crop((left, top, left + crop, top + crop)), np.float32) / 255
    return torch.from_numpy(((pixels - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]


def test_clip_equals_the_network_itself(clip_folder: Path) -> None:
    teacher = load_teacher(f"hf:{clip_folder}")
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = teacher.embed_images(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    pixels = torch.cat([pil_pixels(image, 32, 32, [0.48, 0.45, 0.40], [0.26, 0.26, 0.27], 3) for image in images])
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixels).pooler_output)
        tokens = torch.tensor([[1, 4, 5, 6, 4, 7, 2, 0], [1, 4, 8, 2, 0, 0, 0, 0]])
        texts = model.text_projection(model.text_model(tokens, attention_mask=(tokens > 0).long()).pooler_output)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)  # PIL rounds to 8 bits
    torch.testing.assert_close(teacher.embed_texts(["a photo of a cat", "a dog"]), texts)
    assert teacher.embed_dim == 24
    assert teacher.vocabulary is None


def test_the_image_side_is_differentiable_and_frozen(clip_folder: Path) -> None:
    teacher = load_teacher(f"hf:{clip_folder}")
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    teacher.embed_images(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert not teacher.network.training


def test_dino_has_images_only(dino_folder: Path) -> None:
    teacher = load_teacher(f"hf:{dino_folder}")
    model = transformers.Dinov2Model.from_pretrained(dino_folder).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = teacher.embed_images(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    pixels = torch.cat([pil_pixels(i, 32, 28, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 3) for i in images])
    with torch.no_grad():
        torch.testing.assert_close(found, model(pixels).pooler_output, rtol=0.02, atol=0.02)
    assert teacher.vocabulary == ()
    with pytest.raises(TeacherError, match="has no text encoder, which CGKD and the diversity term need"):
        teacher.embed_texts(["a cat"])


def test_siglip(siglip_folder: Path) -> None:
    teacher = load_teacher(f"hf:{siglip_folder}")
    model = transformers.SiglipModel.from_pretrained(siglip_folder).eval()
    images = torch.rand(2, 3, 48, 24) * 2 - 1
    squashed = torch.nn.functional.interpolate((images + 1) / 2, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = model.vision_model((squashed - 0.5) / 0.5).pooler_output
        tokens = torch.tensor([[1, 4, 8, 2, 0, 0, 0, 0]])
        texts = model.text_model(tokens).pooler_output
    torch.testing.assert_close(teacher.embed_images(images), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(teacher.embed_texts(["a dog"]), texts)


def test_bf16(dino_folder: Path) -> None:
    images = torch.rand(4, 3, 40, 40) * 2 - 1
    exact, short = (load_teacher(f"hf:{dino_folder}", "cpu", p).embed_images(images) for p in ("fp32", "bf16"))
    assert short.dtype == torch.float32
    assert 0 < float((exact - short).norm() / exact.norm()) < 0.03


def test_bad_texts(clip_folder: Path) -> None:
    teacher = load_teacher(f"hf:{clip_folder}")
    with pytest.raises(PromptError, match=r"--kd-prompts: 'a cat a cat a cat a' has 9 tokens; .* takes 8 at most"):
        teacher.embed_texts(["a cat a cat a cat a"])
    with pytest.raises(PromptError, match=r"an empty prompt .* has no words"):
        teacher.embed_texts(["a cat", " "])


def test_what_cannot_be_loaded(tmp_path: Path, dino_folder: Path) -> None:
    with pytest.raises(TeacherError, match=r"--kd=hf: names no model; give hf:ORG/MODEL"):
        load_teacher("hf:")
    with pytest.raises(TeacherError, match=r"--kd=hf:.*nothing: cannot be loaded \(.*give hf:ORG/MODEL"):
        load_teacher(f"hf:{tmp_path / 'nothing'}")
    bare = tmp_path / "bare"
    transformers.Dinov2Model.from_pretrained(dino_folder).save_pretrained(bare)
    with pytest.raises(TeacherError, match=r"has no preprocessor_config\.json, which says how it wants its images"):
        load_teacher(f"hf:{bare}")
    save_preprocessing(bare, size={"height": 32, "width": 48})
    with pytest.raises(TeacherError, match="only squares are supported"):
        load_teacher(f"hf:{bare}")
    texts = tmp_path / "bert"
    transformers.BertModel(transformers.BertConfig(vocab_size=11, **SMALL)).save_pretrained(texts)
    save_preprocessing(texts, size=32)
    with pytest.raises(TeacherError, match="BertModel cannot be used as an image tower"):
        load_teacher(f"hf:{texts}")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TeacherError, match=r"--kd=hf:x needs a package that is not installed .*: pip install transf"):
        load_teacher("hf:x")


def test_the_global_random_state_stays(dino_folder: Path) -> None:
    before = torch.get_rng_state()
    load_teacher(f"hf:{dino_folder}")
    assert torch.equal(before, torch.get_rng_state())

"""The TorchScript teacher: a scripted tower and a table of texts, made here."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_plugin.errors import PromptError, TeacherError
from kd_plugin.teachers import Teacher, load_teacher, load_teachers
from kd_plugin.teachers.script import split_spec

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

NAMES = ["dog", "puppy", "cat", "a cat"]


class Tower(nn.Module):
    """A mean over each half of the image, a linear map, and what a teacher must not do: dropout in training mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(6, width)

    def forward(self, images: Tensor) -> Tensor:
        upper, lower = images.chunk(2, dim=2)
        means = torch.cat([upper.mean(dim=[2, 3]), lower.mean(dim=[2, 3])], dim=1)
        return self.linear(nn.functional.dropout(means, 0.5, self.training)).tanh()


class Conv(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1]


class Fixed(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(-1, 3 * 224 * 224)


@pytest.fixture
def tower(tmp_path: Path) -> Tower:
    torch.manual_seed(0)
    module = Tower(5)
    torch.jit.script(module).save(tmp_path / "tower.pt")
    return module.eval()


@pytest.fixture
def table(tmp_path: Path) -> np.ndarray:
    embeddings = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float16)
    np.savez(tmp_path / "texts.npz", names=NAMES, embeddings=embeddings, prompt_template="a {}")
    return embeddings


@pytest.fixture
def teacher(tmp_path: Path, tower: Tower, table: np.ndarray) -> Teacher:
    return load_teacher(f"script:{tmp_path}/tower.pt+{tmp_path}/texts.npz")


def test_embed_images_is_the_tower(teacher: Teacher, tower: Tower) -> None:
    images = (torch.rand(3, 3, 10, 12) * 2 - 1).requires_grad_(True)
    expected = tower(images)
    embeddings = teacher.embed_images(images)
    assert isinstance(teacher, Teacher)
    assert teacher.embed_dim == 5
    torch.testing.assert_close(embeddings, expected)
    (gradient,) = torch.autograd.grad(embeddings.square().sum(), images)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), images)
    torch.testing.assert_close(gradient, expected_gradient)
    assert gradient.abs().max() > 0
    assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())


def test_embed_texts_by_name_and_in_full(teacher: Teacher, table: np.ndarray) -> None:
    rows = torch.from_numpy(table.astype(np.float32))
    embedded = teacher.embed_texts(["cat", "a dog", "dog", "a puppy"])
    assert torch.equal(embedded, rows[[2, 0, 0, 1]])
    assert embedded.dtype == torch.float32
    assert torch.equal(teacher.embed_texts(["a cat", "a a cat"]), rows[[3, 3]])  # a name counts before a template
    assert teacher.vocabulary == tuple(NAMES)


def test_copies_share_and_pickles_refuse(teacher: Teacher) -> None:
    assert copy.deepcopy(teacher) is teacher
    with pytest.raises(TeacherError, match=r"teacher 'script:.*' cannot be pickled"):
        pickle.dumps(teacher)


def test_fingerprint_covers_tower_and_texts(tmp_path: Path, teacher: Teacher, table: np.ndarray) -> None:
    spec = f"script:{tmp_path}/tower.pt+{tmp_path}/texts.npz"
    assert load_teacher(spec).fingerprint == teacher.fingerprint
    np.savez(tmp_path / "texts.npz", names=NAMES, embeddings=table * 2, prompt_template="a {}")
    changed = load_teacher(spec).fingerprint
    assert changed != teacher.fingerprint
    torch.jit.script(Tower(5)).save(tmp_path / "tower.pt")
    assert load_teacher(spec).fingerprint not in (changed, teacher.fingerprint)


def test_split_spec_with_plus_signs_and_drives(tmp_path: Path) -> None:
    assert split_spec("a.pt+b.npz") == (Path("a.pt"), Path("b.npz"))
    assert split_spec("a+b.pt") == (Path("a+b.pt"), None)
    assert split_spec("c++/a.pt+b.NPZ") == (Path("c++/a.pt"), Path("b.NPZ"))  # nothing exists: the last one
    assert split_spec(r"C:\a.pt+D:\b.npz") == (Path(r"C:\a.pt"), Path(r"D:\b.npz"))
    (tmp_path / "x+y.pt").touch()
    assert split_spec(f"{tmp_path}/x+y.pt+{tmp_path}/t+u.npz") == (tmp_path / "x+y.pt", tmp_path / "t+u.npz")
    with pytest.raises(TeacherError, match=r"--kd=script:b\.npz: a table of texts without an image tower"):
        split_spec("b.npz")


# ---- messages about texts ----


def test_an_unknown_prompt(teacher: Teacher) -> None:
    with pytest.raises(PromptError) as caught:
        teacher.embed_texts(["dog", "pupy"])
    assert str(caught.value) == (
        "--kd-prompts: 'pupy' is not among the 4 texts of texts.npz; nearest: 'puppy'; "
        "give a name of the table, alone or as 'a {}'"
    )


def test_no_prompt(teacher: Teacher) -> None:
    with pytest.raises(PromptError, match=r"was given no prompt to embed; give texts with --kd-prompts"):
        teacher.embed_texts([])


@pytest.mark.usefixtures("tower")
def test_a_tower_alone_has_no_texts(tmp_path: Path) -> None:
    teacher = load_teacher(f"script:{tmp_path}/tower.pt")
    assert teacher.vocabulary == ()
    assert teacher.embed_images(torch.zeros(1, 3, 4, 4)).shape == (1, 5)
    with pytest.raises(
        TeacherError, match=r"has no texts, which CGKD needs: give .*tower\.pt\+TEXTS\.npz, or .*--kd-cgkd=0"
    ):
        teacher.embed_texts(["dog"])


# ---- messages about files ----


@pytest.mark.usefixtures("tower", "table")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}/towr.pt", r"there is no image tower '.*towr\.pt'; nearest: 'tower\.pt'"),
        ("{}/tower.pt+{}/text.npz", r"there is no table of texts '.*text\.npz'; nearest: 'texts\.npz'"),
        ("{}/texts.txt", r"'.*texts\.txt' is not a TorchScript file; save the tower with torch\.jit\.script"),
        ("", r"--kd=script: names no file; give script:IMAGE_TOWER\.pt\+TEXTS\.npz"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "texts.txt").write_text("dog")
    with pytest.raises(TeacherError, match=message):
        load_teacher("script:" + spec.replace("{}", str(tmp_path)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Conv(), r"turns images \[2, 3, 64, 64\] into \[2, 1, 64, 64\]; it must give \[N, E\]"),
        (Fixed(), r"fails on images \[2, 3, 64, 64\] \(.*\); it must take float32 \[N, 3, H, W\] of any H and W"),
    ],
)
def test_towers_with_another_contract(tmp_path: Path, module: nn.Module, message: str) -> None:
    torch.jit.script(module).save(tmp_path / "tower.pt")
    with pytest.raises(TeacherError, match=message):
        load_teacher(f"script:{tmp_path}/tower.pt")


def test_tower_and_table_of_different_widths(tmp_path: Path, tower: Tower) -> None:
    np.savez(tmp_path / "texts.npz", names=NAMES, embeddings=np.zeros((4, 7), np.float32), prompt_template="a {}")
    with pytest.raises(
        TeacherError, match="the tower embeds in 5 numbers and the texts in 7; give a tower and a table"
    ):
        load_teacher(f"script:{tmp_path}/tower.pt+{tmp_path}/texts.npz")


@pytest.mark.usefixtures("tower")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": np.array(["dog", 3], dtype=object)}, "is not a table of texts .*without pickled objects"),
        ({"names": np.arange(4)}, r"cannot be used: names must be a list of strings, found int64 \[4\]"),
        ({"names": ["dog", "cat"]}, r"cannot be used: embeddings must be floats \[2, E\], found float16 \[4, 5\]"),
        ({"names": ["dog", "dog", "cat", "cow"]}, "cannot be used: names holds the same name twice"),
        ({"embeddings": np.full((4, 5), np.nan)}, "cannot be used: embeddings holds numbers that are not finite"),
        ({"prompt_template": "a photo"}, r"cannot be used: prompt_template must be one string with one \{\}"),
        ({"embeddings": None}, "is not a table of texts .*must hold the arrays names, embeddings and prompt_template"),
    ],
)
def test_tables_with_another_content(
    tmp_path: Path, table: np.ndarray, change: dict[str, object], message: str
) -> None:
    arrays = {"names": NAMES, "embeddings": table, "prompt_template": "a {}"} | change
    np.savez(tmp_path / "texts.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(TeacherError, match=message):
        load_teacher(f"script:{tmp_path}/tower.pt+{tmp_path}/texts.npz")


@pytest.mark.usefixtures("tower")
@pytest.mark.parametrize("content", [b"", b"some text", b"PK\x03\x04 cut"])
def test_damaged_tables(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "texts.npz").write_bytes(content)
    with pytest.raises(TeacherError, match="is not a table of texts"):
        load_teacher(f"script:{tmp_path}/tower.pt+{tmp_path}/texts.npz")


def test_a_damaged_tower(tmp_path: Path, tower: Tower) -> None:
    path = tmp_path / "tower.pt"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "part.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith("/data.pkl"):
                part.writestr(name, whole.read(name))
    with pytest.raises(TeacherError, match=r"the tower '.*part\.pt' cannot be read \(.+\)"):
        load_teacher(f"script:{tmp_path}/part.pt")


def test_a_tower_of_constants_cannot_be_scrambled(tmp_path: Path, tower: Tower) -> None:
    torch.jit.freeze(torch.jit.script(tower)).save(tmp_path / "constants.pt")
    with pytest.raises(TeacherError, match=r"--kd-control=scramble: .* cannot be reached"):
        load_teachers(f"script:{tmp_path}/constants.pt", control="scramble")


class Convolutions(nn.Module):
    """With `flatten`, runs in every layout of the images; with view, only where each channel lies in one piece."""

    def __init__(self, viewed: bool) -> None:
        super().__init__()
        self.viewed = viewed
        self.convolution = nn.Conv2d(3, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        rows = maps.view(maps.shape[0], -1) if self.viewed else maps.flatten(1)
        return rows.unflatten(1, (5, -1)).mean(dim=2)


@pytest.mark.parametrize("viewed", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_of_every_layout(viewed: bool, layout: torch.memory_format, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Convolutions(viewed)
    torch.jit.script(module).save(tmp_path / "tower.pt")
    teacher = load_teacher(f"script:{tmp_path}/tower.pt")
    images = torch.rand(2, 3, 8, 8)
    embeddings = teacher.embed_images(images.contiguous(memory_format=layout))
    torch.testing.assert_close(embeddings, module(images))


def test_on_a_cpu_convolutions_get_channels_last(tmp_path: Path) -> None:
    class Strides(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            return self.convolution(images).mean(dim=[2, 3]) * 0 + float(images.stride(1))

    torch.jit.script(Strides(False)).save(tmp_path / "tower.pt")
    teacher = load_teacher(f"script:{tmp_path}/tower.pt")
    assert teacher.embed_images(torch.rand(2, 3, 8, 8)).unique().item() == 1

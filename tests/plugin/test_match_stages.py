"""Matching at the teacher's stages: cell by cell, cached, and refused where it cannot work."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kd_plugin import KDError, TeacherError
from kd_plugin.functional import energy_distance
from kd_plugin.terms.stage_choice import spread
from tests.plugin.conftest import FakeTeacher


class StagedTeacher(FakeTeacher):
    """Shrinks images to 8 x 8: stages of 8, 4 and 2 places on a side."""

    stage_names: tuple[str, ...] = ("early", "middle", "late")
    channels, size = 5, 8

    def embed_with_stages(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Sequence[Tensor]]:
        mix = torch.randn(self.channels, 3, 1, 1, generator=torch.Generator().manual_seed(2))
        early = functional.conv2d(functional.adaptive_avg_pool2d(images, self.size), mix).tanh()
        made = {"early": early} | {
            n: functional.avg_pool2d(early, s) for n, s in (("middle", 2), ("late", 4)) if n in names
        }
        return self.embed_images(images), [made[name] for name in names]


@pytest.fixture
def teacher() -> StagedTeacher:
    return StagedTeacher()


def by_hand(fake: Tensor, real: Tensor, grid: int) -> Tensor:
    """The mean over the cells of the numerator, divided by that of the denominator."""
    fakes, reals = (functional.adaptive_avg_pool2d(x, grid).flatten(2).unbind(2) for x in (fake, real))
    spreads = [torch.pdist(rows).mean() for rows in reals]
    cells = zip(fakes, reals, spreads, strict=True)
    return sum(energy_distance(f, r) * s for f, r, s in cells) / sum(spreads)


def test_each_stage_is_matched_cell_by_cell(attach, teacher, images):
    kd = attach(terms={"match": 2.0}, match_on="stages", prompts=None)
    fake, real = images(1, 5).requires_grad_(), images(2, 4)
    distilled = kd.for_generator(fake, real)
    (f, fakes), (r, reals) = (teacher.embed_with_stages(x, teacher.stage_names) for x in (fake, real))
    expected = {"match/embedding": energy_distance(f, r)}
    for name, grid, *maps in zip(teacher.stage_names, (4, 4, 2), fakes, reals, strict=True):
        expected[f"match/{name}"] = by_hand(*maps, grid)
    mean = sum(expected.values()) / 4
    torch.testing.assert_close(distilled.terms, {"match": mean, **expected})
    (gradient,) = torch.autograd.grad(distilled.total, fake)
    (by_hands,) = torch.autograd.grad(2 * mean, fake)
    torch.testing.assert_close(gradient, by_hands)


@pytest.mark.parametrize(
    ("on", "parts"),
    [
        ("late, embedding", ["embedding", "late"]),
        ("stages", ["embedding", "early", "middle", "late"]),
        ("late,stages,late", ["embedding", "early", "middle", "late"]),
    ],
)
def test_what_is_matched_can_be_named(on, parts, attach, images):
    distilled = attach(terms={"match": 1.0}, match_on=on).for_generator(images(1), images(2))
    assert list(distilled.terms) == ["match", *(f"match/{part}" for part in parts)]
    assert distilled.terms["match"] == torch.stack([distilled.terms[f"match/{part}"] for part in parts]).mean()


def test_by_default_stages_are_matched_where_the_teacher_has_them(attach, images, teacher):
    by_default = attach(terms={"match": 1.0}).for_generator(images(1), images(2))
    assert by_default.terms == attach(terms={"match": 1.0}, match_on="stages").for_generator(images(1), images(2)).terms
    teacher.stage_names = ()
    without = attach(terms={"match": 1.0}).for_generator(images(1), images(2))
    assert list(without.terms) == ["match"]
    torch.testing.assert_close(without.total, energy_distance(*map(teacher.embed_images, (images(1), images(2)))))


def test_only_what_is_matched_is_computed(attach, images, teacher):
    asked = []
    whole = teacher.embed_with_stages
    kd = attach(terms={"match": 1.0}, match_on="late")
    teacher.embed_with_stages = lambda images, names: (asked.append(names), whole(images, names))[1]
    kd.for_generator(images(1), images(2))
    assert asked == [("late",)] * 2


def test_many_stages_are_spread_over_the_depth():
    blocks = tuple(f"block{number}" for number in range(1, 13))
    assert spread(blocks) == ("block3", "block6", "block9", "block12")
    assert spread(blocks[:6]) == ("block1", "block3", "block4", "block6")
    assert spread(blocks[:3]) == blocks[:3]


@pytest.mark.parametrize(("grid", "size"), [("1", 1), ("2", 2)])
def test_the_grid_can_be_chosen(grid, size, attach, images, teacher):
    fake, real = images(1), images(2)
    kd = attach(terms={"match": 1.0}, match_on="early", match_grid=grid)
    _, (f,), _, (r,) = (*teacher.embed_with_stages(fake, ["early"]), *teacher.embed_with_stages(real, ["early"]))
    torch.testing.assert_close(kd.for_generator(fake, real).total, by_hand(f, r, size))


def test_the_cells_of_real_images_are_cached(attach, images, teacher):
    kd = attach(terms={"match": 1.0}, match_on="stages", view="clean")
    plain = attach(terms={"match": 1.0}, match_on="stages")
    keys, real = torch.tensor([3, 1, 8, 4]), images(2)
    for seed in (1, 5):
        first = kd.for_generator(images(seed), real, keys=keys)
        torch.testing.assert_close(first.terms, plain.for_generator(images(seed), real).terms)
    teacher.calls.clear()
    kd.for_generator(images(6), real.flip(0), keys=keys.flip(0))
    assert [len(call) for call in teacher.calls] == [4]  # the generated ones
    kd.for_generator(images(6), images(7), keys=torch.tensor([3, 1, 8, 9]))
    assert [len(call) for call in teacher.calls] == [4, 4, 4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"match_on": "lat"}, KDError, "match_on='lat': the teacher has no such stage; nearest: 'late'"),
        ({"match_on": "midle"}, KDError, "or some of embedding, early, middle, late"),
        ({"match_on": " , "}, KDError, "match_on=' , ' names nothing; give embedding, stages, or"),
        ({"match_on": "late", "match_grid": "3"}, KDError, "match_grid='3': the teacher's late has 2 places on a side"),
        ({"match_grid": "0"}, KDError, "match_grid='0' is not a number of cells; give auto, or 1 or more"),
        ({"match_grid": "fine"}, KDError, "match_grid='fine' is not a number of cells"),
    ],
)
def test_what_cannot_be_matched(options, error, message, attach):
    with pytest.raises(error, match=re.escape(message)):
        attach(terms={"match": 1.0}, **options)


@pytest.mark.parametrize("stageless", [FakeTeacher(), type("None", (StagedTeacher,), {"stage_names": ()})()])
def test_a_teacher_without_stages(stageless, attach):
    with pytest.raises(
        TeacherError,
        match=r"but teacher 'fake' has no stages; use another teacher, set match_on='embedding', or set match=0",
    ):
        attach(terms={"match": 1.0}, match_on="stages", teacher=stageless)
    attach(terms={"match": 1.0}, match_on="embedding", teacher=stageless)


def test_stages_that_change(attach, images, teacher):
    kd = attach(terms={"match": 1.0}, match_on="early")
    teacher.size = 2
    with pytest.raises(TeacherError, match=r"gave early in the shape \[4, 5, 2, 2\] .* at least 4 places on a side"):
        kd.for_generator(images(1), images(2))
    teacher.channels, teacher.size = 6, 8
    with pytest.raises(TeacherError, match=r"\[4, 6, 8, 8\] for images \[4, 3, 8, 8\]; expected 5 channels, as before"):
        kd.for_generator(images(1), images(2))
    teacher.embed_with_stages = lambda images, names: (teacher.embed_images(images), [])
    with pytest.raises(TeacherError, match="gave 0 stages when asked for 1"):
        kd.for_generator(images(1), images(2))


@pytest.mark.parametrize("names", [("a", "a"), ("a,b",), ("embedding",), ("stages", "x"), ("",), (" a",)])
def test_names_of_stages_that_options_cannot_hold(names, attach, teacher):
    teacher.stage_names = names
    with pytest.raises(TeacherError, match="names must differ, hold no comma, and be neither 'embedding' nor 'stages'"):
        attach(terms={"match": 1.0}, match_on="stages")


def test_names_may_hold_dots(attach, teacher, images, monkeypatch):
    monkeypatch.setattr(teacher, "stage_names", ("features.4", "type"))
    monkeypatch.setattr(
        teacher, "embed_with_stages", lambda x, names: (teacher.embed_images(x), [x for _ in names]), raising=False
    )
    kd = attach(terms={"match": 1.0, "critic": 1.0}, match_on="stages", critic_on="features.4")
    assert "match/features.4" in kd.for_generator(images(1), images(2)).terms


def test_the_parts_of_several_teachers_are_listed_together(attach, images):
    class Other(StagedTeacher):
        name, stage_names = "other", ("early", "late")

    teachers = [(1.0, StagedTeacher()), (0.5, Other())]
    kd = attach(terms={"match": 1.0}, match_on="stages", teacher=teachers, prompts=None)
    (info,) = kd.terms_info
    assert info.parts == ("embedding", "early", "middle", "late")
    terms = kd.for_generator(images(1), images(2)).terms
    assert terms["match/late"] == terms["match/late/fake"] + 0.5 * terms["match/late/other"]
    assert set(info.part_names.values()) < terms.keys()

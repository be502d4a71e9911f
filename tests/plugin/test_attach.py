"""attach(): where each choice comes from, and what it says of a wrong one."""

from __future__ import annotations

import json
import re
from typing import get_type_hints

import pytest
from torch import nn

import kd_plugin
from kd_plugin import KDConfig, KDError, LayerError, PromptError, TeacherError
from kd_plugin.assembly import KDOptions
from kd_plugin.config.schema import from_dict, options_of, to_dict
from kd_plugin.student.layers import LayerChoice
from kd_plugin.terms import AGKD


def weights(kd):
    return {info.name: info.weight for info in kd.terms_info}


def test_defaults_are_those_of_the_config(discriminator, teacher, prompts):
    kd = kd_plugin.attach(discriminator, teacher=teacher, prompts=prompts)
    assert to_dict(kd.config) == to_dict(KDConfig())
    assert weights(kd) == {"agkd": 1.0, "cgkd": 1.0, "critic": 1.0, "match": 1.0}


def test_terms_replace_the_weights_of_the_config(attach):
    kd = attach(config=from_dict(KDConfig, {"agkd": 5, "diversity": 2}), terms={"cgkd": 3.0})
    assert weights(kd) == {"cgkd": 3.0}
    assert kd.config.weights == {"agkd": 0, "cgkd": 3, "critic": 0, "diversity": 0, "match": 0}


def test_terms_take_options_too(attach):
    kd = attach(terms={"agkd": AGKD.Options(weight=2.0, distance="mse"), "match": 1})
    assert weights(kd) == {"agkd": 2.0, "match": 1.0}
    assert kd.config.terms["agkd"].distance == "mse"


def test_the_typed_options_are_those_of_the_config():
    """KDOptions exists for type checkers; `teacher` and `prompts` are arguments of their own."""
    kinds = {item.key: item.kind for item in options_of(KDConfig)} | {"layer": LayerChoice}
    assert get_type_hints(KDOptions) == {k: v for k, v in kinds.items() if k not in ("teacher", "prompts")}


def test_without_prompts_terms_that_need_them_are_off(discriminator, teacher, images, run):
    with pytest.warns(
        UserWarning, match=r"^cgkd is off: it compares images with texts.*pass prompts=\[...\]"
    ) as warned:
        kd = kd_plugin.attach(discriminator, layer="b4.fc", teacher=teacher, balance=0)
    assert len(warned) == 1
    assert weights(kd) == {"agkd": 1.0, "critic": 1.0, "match": 1.0}
    assert run(kd, discriminator, images(1), images(2)).total > 0
    assert teacher.text_calls == 0


@pytest.mark.parametrize("asked", [{"cgkd": 1.0}, {"terms": {"cgkd": 1.0}}, {"variant": "paper"}])
def test_a_term_that_was_asked_for_is_not_dropped(discriminator, teacher, asked):
    with pytest.raises(PromptError, match=r"cgkd.* compares images with texts; pass prompts=\[...\], or set cgkd=0"):
        kd_plugin.attach(discriminator, teacher=teacher, **asked)


def test_overrides_replace_fields_of_the_config(attach):
    kd = attach(config=KDConfig(p=0.1, head="linear"), p=0.2, agkd=4)
    assert (kd.config.p, kd.config.head, weights(kd)["agkd"]) == (0.2, "linear", 4)


@pytest.mark.parametrize(("config", "spec"), [(None, "clip"), (KDConfig(), "clip"), (KDConfig(teacher="demo"), "demo")])
def test_teacher_by_spec(monkeypatch, discriminator, make_teacher, config, spec, prompts):
    asked = []
    monkeypatch.setattr(
        "kd_plugin.assembly.load_teachers", lambda s, *others: asked.append(s) or [(1.0, make_teacher())]
    )
    kd_plugin.attach(discriminator, prompts=prompts, config=config)
    assert asked == [spec]


def test_the_control_reaches_the_teacher(discriminator):
    plain, scrambled = (
        kd_plugin.attach(discriminator, teacher="demo", terms={"agkd": 1.0}, control=control).teacher
        for control in ("none", "scramble")
    )
    assert plain.fingerprint != scrambled.fingerprint


def test_prompts_from_the_file_of_the_config(attach, tmp_path):
    (tmp_path / "prompts.txt").write_text("one cat\ntwo cats\n")
    assert attach(prompts=None, config=KDConfig(prompts=str(tmp_path / "prompts.txt"))).prompts.texts == (
        "one cat",
        "two cats",
    )


def test_width_of_a_silent_layer(attach, discriminator, images, run):
    silent = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6)), nn.Linear(6, 1))
    message = re.escape("layer='0' (Sequential) does not state its number of features; pass width= to attach()")
    with pytest.raises(LayerError, match=message):
        attach(silent, layer="0")
    assert run(attach(silent, layer="0", width=6), silent, images(1), images(2)).total > 0


def test_config_survives_json(attach):
    config = attach(p=0.25, terms={"agkd": 1}).config
    assert from_dict(KDConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"terms": {"agdk": 1}}, KDError, "unknown term 'agdk'; nearest: 'agkd'"),
        ({"terms": {"agkd": -1}}, KDError, "agkd=-1.0 is not a weight; give a number of at least 0"),
        ({"terms": {"agkd": 1}, "agkd": 2}, KDError, "the weight of 'agkd' is given twice"),
        ({"lyer": "b4.fc"}, KDError, "unknown argument of attach() 'lyer'; nearest: 'layer'"),
        ({"layer": "b4.fcc"}, LayerError, "layer='b4.fcc' is not in the discriminator; nearest: 'b4.fc'"),
        ({"view": "augmented"}, KDError, "view='augmented' is unknown; choose one of auto, seen, clean"),
        (
            {"head": "conv"},
            KDError,
            "head='conv' is unknown; choose one of auto, identity, linear, mlp, orthogonal",
        ),
        ({"layer": "b4.conv", "head": "identity"}, KDError, "head='identity' needs equal widths"),
        ({"p": 1.5}, KDError, "p=1.5 is not a probability; give a number from 0 to 1"),
        ({"p": "often"}, KDError, "argument of attach() 'p': 'often' is not of type float"),
        ({"prompts": ["a cat", "a cat"]}, PromptError, "cgkd need at least 2 different prompts, got 1 ('a cat')"),
        ({"prompts": "a cat"}, PromptError, "expected a list of texts, got the one text 'a cat'"),
        ({"teacher": 3}, TeacherError, "teacher: int has no name, embed_dim"),
    ],
)
def test_messages_of_attach(attach, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        attach(**options)

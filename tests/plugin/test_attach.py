"""attach(): where each choice comes from, and what it says of a wrong one."""

from __future__ import annotations

import json
import re

import pytest
from torch import nn

import kd_plugin
from kd_plugin import KDConfig, KDError, LayerError, PromptError, TeacherError
from kd_plugin.config.schema import from_dict, to_dict


def test_defaults_are_those_of_the_config(discriminator, teacher, prompts):
    kd = kd_plugin.attach(discriminator, teacher=teacher, prompts=prompts)
    assert to_dict(kd.config) == to_dict(KDConfig())
    assert kd.weights == {"agkd": 1.0, "cgkd": 1.0, "match": 1.0}


def test_losses_replace_the_weights_of_the_config(attach):
    kd = attach(config=KDConfig(agkd=5, diversity=2), losses={"cgkd": 3.0})
    assert kd.weights == {"cgkd": 3.0}
    assert (kd.config.agkd, kd.config.cgkd, kd.config.diversity) == (0, 3, 0)


def test_overrides_replace_fields_of_the_config(attach):
    kd = attach(config=KDConfig(p=0.1, head="linear"), p=0.2, agkd=4)
    assert (kd.config.p, kd.config.head, kd.weights["agkd"]) == (0.2, "linear", 4)


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
        kd_plugin.attach(discriminator, teacher="demo", losses={"agkd": 1.0}, control=control).teacher
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
    message = re.escape(
        "--kd-layer: '0' (Sequential) does not tell how many features it gives; pass width= to attach()"
    )
    with pytest.raises(LayerError, match=message):
        attach(silent, layer="0")
    assert run(attach(silent, layer="0", width=6), silent, images(1), images(2)).total > 0


def test_config_survives_json(attach):
    config = attach(p=0.25, losses={"agkd": 1}).config
    assert from_dict(KDConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"losses": {"agdk": 1}}, KDError, "unknown loss 'agdk'; nearest: 'agkd'"),
        ({"losses": {"agkd": -1}}, KDError, "--kd-agkd: -1 is not a weight; give a number of at least 0"),
        ({"losses": {"agkd": 1}, "agkd": 2}, KDError, "the weight of 'agkd' is given twice"),
        ({"lyer": "b4.fc"}, KDError, "unknown option of attach() 'lyer'; nearest: 'layer'"),
        ({"layer": "b4.fcc"}, LayerError, "--kd-layer: 'b4.fcc' is not in the discriminator; nearest: 'b4.fc'"),
        ({"view": "augmented"}, KDError, "--kd-view: 'augmented' is unknown; choose one of seen, clean"),
        (
            {"head": "conv"},
            KDError,
            "--kd-head: 'conv' is unknown; choose one of auto, identity, linear, mlp, orthogonal",
        ),
        ({"layer": "b4.conv", "head": "identity"}, KDError, "--kd-head: 'identity' needs equal widths"),
        ({"p": 1.5}, KDError, "--kd-p: 1.5 is not a probability; give a number from 0 to 1"),
        ({"p": "often"}, KDError, "option of attach() 'p': 'often' is not of type float"),
        ({"prompts": None}, PromptError, "cgkd compare images with texts: pass prompts=[...]"),
        ({"prompts": ["a cat", "a cat"]}, PromptError, "cgkd need at least 2 different prompts, got 1 ('a cat')"),
        ({"prompts": "a cat"}, PromptError, "expected a list of texts, got the one text 'a cat'"),
        ({"teacher": 3}, TeacherError, "teacher: int has no name, embed_dim"),
    ],
)
def test_messages_of_attach(attach, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        attach(**options)

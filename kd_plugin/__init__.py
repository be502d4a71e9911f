"""CLIP knowledge distillation for any GAN (KD-DLGAN, CVPR 2023), in ten lines:

kd = kd_plugin.attach(D, layer="b4.fc", teacher="clip", prompts=["a photo of a cat", "a sketch of a cat"])
opt_d.add_param_group({"params": kd.parameters()})
with kd.capture("real"):
    d_real = D(augment(real))
with kd.capture("fake"):
    d_fake = D(augment(fake.detach()))
loss_d = your_loss(d_real, d_fake)
loss_d = loss_d + kd(loss_d).total
loss_g = your_loss_of_g(D(augment(fake)))
loss_g = loss_g + kd.for_generator(fake, real, loss_g).total
"""

from kd_plugin.assembly import attach
from kd_plugin.config.kd import VARIANTS, KDConfig
from kd_plugin.diagnostics import gradient_ratio
from kd_plugin.distances import DISTANCES, Distance
from kd_plugin.distiller import Distiller
from kd_plugin.errors import CaptureError, KDError, LayerError, PromptError, TeacherError
from kd_plugin.interface import AnyDistiller
from kd_plugin.multi_teacher import MultiTeacherDistiller
from kd_plugin.probe.run import probe_teacher
from kd_plugin.prompts.bank import PromptBank
from kd_plugin.prompts.selection import select_prompts
from kd_plugin.prompts.sources import choose_prompts
from kd_plugin.set_distances import SET_DISTANCES
from kd_plugin.student.layers import list_layers
from kd_plugin.teachers import Teacher, load_teacher, load_teachers
from kd_plugin.terms import (
    TERMS,
    ComparisonOptions,
    ComparisonTerm,
    DiscriminatorStep,
    GeneratorStep,
    Needs,
    Term,
    TermInfo,
    TermOptions,
)
from kd_plugin.types import Captured, Distilled, Pairs

__all__ = [
    "DISTANCES",
    "SET_DISTANCES",
    "TERMS",
    "VARIANTS",
    "AnyDistiller",
    "CaptureError",
    "Captured",
    "ComparisonOptions",
    "ComparisonTerm",
    "DiscriminatorStep",
    "Distance",
    "Distilled",
    "Distiller",
    "GeneratorStep",
    "KDConfig",
    "KDError",
    "LayerError",
    "MultiTeacherDistiller",
    "Needs",
    "Pairs",
    "PromptBank",
    "PromptError",
    "Teacher",
    "TeacherError",
    "Term",
    "TermInfo",
    "TermOptions",
    "attach",
    "choose_prompts",
    "gradient_ratio",
    "list_layers",
    "load_teacher",
    "load_teachers",
    "probe_teacher",
    "select_prompts",
]

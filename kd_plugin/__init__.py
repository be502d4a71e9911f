"""CLIP knowledge distillation for any GAN's discriminator (KD-DLGAN, CVPR 2023), in five lines:

kd = kd_plugin.attach(D, layer="b4.fc", teacher="clip", prompts=["a photo of a cat", "a sketch of a cat"])
opt_d.add_param_group({"params": kd.parameters()})
with kd.capture("real"): d_real = D(augment(real))
with kd.capture("fake"): d_fake = D(augment(fake.detach()))
loss_d = loss_d + kd(loss_d).total

and, where the generator shall learn too, loss_g = loss_g + kd.for_generator(fake, real, loss_g).total
"""

from kd_plugin.assembly import AnyDistiller, attach
from kd_plugin.config.kd import VARIANTS, KDConfig
from kd_plugin.diagnostics import gradient_ratio
from kd_plugin.distiller import Distiller
from kd_plugin.errors import CaptureError, KDError, LayerError, PromptError, TeacherError
from kd_plugin.multi_teacher import JointDistiller
from kd_plugin.probe.trial import probe_teacher
from kd_plugin.prompts.bank import PromptBank, choose_prompts
from kd_plugin.prompts.selection import telling_prompts
from kd_plugin.student.layers import list_layers
from kd_plugin.teachers import Teacher, load_teacher, load_teachers
from kd_plugin.types import Captured, DistillBatch, Distilled

__all__ = [
    "VARIANTS",
    "AnyDistiller",
    "CaptureError",
    "Captured",
    "DistillBatch",
    "Distilled",
    "Distiller",
    "JointDistiller",
    "KDConfig",
    "KDError",
    "LayerError",
    "PromptBank",
    "PromptError",
    "Teacher",
    "TeacherError",
    "attach",
    "choose_prompts",
    "gradient_ratio",
    "list_layers",
    "load_teacher",
    "load_teachers",
    "probe_teacher",
    "telling_prompts",
]

"""Run as a script, with the checkout's own packages: builds its networks, gives them our weights, and pickles them.

    python -I child.py CHECKOUT SNAPSHOT.safetensors OUT.pkl OUR_ROOT

It is a process of its own because the checkout's packages are called as ours are.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WHOLE_BATCH = 1 << 20  # training.official.pytorch; not imported: `training` is the checkout's here


def arguments_of(role: str, ours: Mapping[str, Any], flat: bool) -> dict[str, Any]:
    """Of the official class.

    Args:
        role: G, D or G_ema.
        ours: arguments of our class.
        flat: whether the generator takes those of its synthesis beside the others, as in stylegan3.
    """
    limits = {name: ours[name] for name in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")}
    images = {name: ours[name] for name in ("c_dim", "img_resolution", "img_channels")}
    if role == "D":
        group = ours["mbstd_group_size"]
        return {
            **images,
            **limits,
            "architecture": ours["architecture"],
            "mapping_kwargs": {"num_layers": ours.get("mapping_layers", 8)},
            "epilogue_kwargs": {"mbstd_group_size": None if group == WHOLE_BATCH else group},
        }
    synthesis = {**limits, "use_noise": ours["use_noise"]}
    return {
        **images,
        **{name: ours[name] for name in ("z_dim", "w_dim")},
        "mapping_kwargs": {"num_layers": ours["mapping_layers"]},
        **(synthesis if flat else {"synthesis_kwargs": synthesis}),
    }


def main(checkout: str, snapshot: str, out: str, root: str) -> None:
    sys.path[:0] = [checkout]
    sys.path.append(root)  # behind everything: only kd_plugin is found there
    from kd_plugin.hosts.repairs import mend

    mend()
    from safetensors import safe_open

    flat = (Path(checkout) / "training" / "networks_stylegan2.py").is_file()
    classes = importlib.import_module("training.networks_stylegan2" if flat else "training.networks")
    content: dict[str, Any] = {"training_set_kwargs": None, "augment_pipe": None}
    with safe_open(snapshot, framework="pt") as file:
        header = json.loads(file.metadata()["kd_plugin"])
        for role, ours in header["networks"].items():
            kind = classes.Discriminator if role == "D" else classes.Generator
            network = kind(**arguments_of(role, ours, flat))
            prefix = f"{role}."
            state = {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
            network.load_state_dict(state)
            content[role] = network.eval().requires_grad_(False)
    with open(out, "wb") as target:
        pickle.dump(content, target)


if __name__ == "__main__":
    main(*sys.argv[1:])

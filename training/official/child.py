"""Run as a script, with the checkout's own packages: builds its networks, gives them our weights, and pickles them.

    python -I child.py CHECKOUT SNAPSHOT.safetensors OUT.pkl ROOT

It is a process of its own because the checkout's packages have the names of this repository's. What to build stands
in the snapshot's header: the module of the classes, and their arguments by role.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from typing import Any


def main(checkout: str, snapshot: str, out: str, root: str) -> None:
    sys.path[:0] = [checkout]
    sys.path.append(root)  # behind everything: only kd_plugin is found there
    from kd_plugin.hosts.repairs import mend

    mend()
    from safetensors import safe_open

    content: dict[str, Any] = {"training_set_kwargs": None, "augment_pipe": None}
    with safe_open(snapshot, framework="pt") as file:
        official = json.loads(file.metadata()["kd_plugin"])["official"]
        classes = importlib.import_module(official["module"])
        for role, arguments in official["networks"].items():
            network = (classes.Discriminator if role == "D" else classes.Generator)(**arguments)
            prefix = f"{role}."
            state = {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
            network.load_state_dict(state)
            content[role] = network.eval().requires_grad_(False)
    with open(out, "wb") as target:
        pickle.dump(content, target)


if __name__ == "__main__":
    main(*sys.argv[1:])

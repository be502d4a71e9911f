"""The rules of docs/architecture.md: imports point downwards and form no cycle; functions stay small."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW: dict[str, set[str]] = {  # what a package may import besides itself
    "dnnlib": set(),
    "kd_plugin": set(),
    "torch_utils": {"dnnlib"},
    "training": {"dnnlib", "kd_plugin", "torch_utils"},
}
MAX_LINES, MAX_PARAMETERS = 60, 7
MORE_PARAMETERS = {  # function: why it has more
    "kd_plugin/assembly.py:attach": "the plug-in's entry point; all but the first three are keywords",
    "kd_plugin/config/schema.py:option": "keywords of a dataclass field",
    "kd_plugin/probe/__main__.py:command": "click passes each flag as an argument",
    "kd_plugin/probe/run.py:probe_teacher": "public; all but the first three are keywords with defaults",
    "kd_plugin/teachers/network.py:__init__": "sizes of the published CLIP architecture",
    "torch_utils/ops/bias_act.py:bias_act": "the signature of the official operation",
    "torch_utils/ops/bias_act.py:_reference": "the same",
    "torch_utils/ops/conv2d_resample.py:conv2d_resample": "the signature of the official operation",
    "torch_utils/ops/conv2d_resample.py:_upsampling": "the same",
    "torch_utils/ops/upfirdn2d.py:upfirdn2d": "the signature of the official operation",
    "training/data/dataset.py:__init__": "all but the path are keywords with defaults",
    "training/data/sampler.py:make_loader": "all but the first two have defaults",
    "training/networks/stylegan2/discriminator.py:__init__": "the options of the official network",
    "training/networks/stylegan2/generator.py:__init__": "the options of the official network",
    "training/networks/stylegan2/modulation.py:modulated_conv2d": "the signature of the official operation",
    "training/networks/stylegan2/synthesis.py:__init__": "the options of the official network",
}


def modules() -> dict[str, Path]:
    """Module name -> file, of the packages and the scripts."""
    files = [*ROOT.glob("*.py"), *(path for package in BELOW for path in (ROOT / package).rglob("*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run at import, except those for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If | ast.Try):
            if "TYPE_CHECKING" not in ast.dump(node):
                yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))
        else:
            yield node


def imports(path: Path, known: set[str], everywhere: bool) -> set[str]:
    """The modules among `known` that a file imports, at its top level or `everywhere` in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if everywhere else top_level(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names} & known
            names |= members or {node.module}
    return names & known


def layer_violations(importer: str, imported: set[str]) -> list[str]:
    package = importer.split(".")[0]
    if package not in BELOW:
        return []  # a script is above all packages
    others = {name.split(".")[0] for name in imported} - {package}
    return [f"{importer} imports {other}" for other in sorted(others - BELOW[package])]


def cycle(known: dict[str, Path]) -> list[str]:
    """The modules of an import cycle; empty if there is none.

    A package's __init__ may import its members, and a member finds its package begun: that edge does not count.
    """
    graph = {
        name: {other for other in imports(path, set(known), everywhere=False) if not name.startswith(f"{other}.")}
        - {name}
        for name, path in known.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def oversized(path: Path) -> list[str]:
    """Functions that are too long or have too many parameters without a stated reason."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls") for argument in arguments)
        name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_LINES:
            found.append(f"{name} has {lines} lines")
        if count > MAX_PARAMETERS and name not in MORE_PARAMETERS:
            found.append(f"{name} has {count} parameters")
    return found


def test_imports_point_downwards() -> None:
    known = modules()
    found = [
        violation
        for name, path in known.items()
        for violation in layer_violations(name, imports(path, set(known), everywhere=True))
    ]
    assert found == []


def test_imports_form_no_cycle() -> None:
    assert cycle(modules()) == []


def test_functions_are_small() -> None:
    assert [line for path in modules().values() for line in oversized(path)] == []


def test_reasons_belong_to_functions() -> None:
    for name in MORE_PARAMETERS:
        path, function = name.split(":")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("dnnlib.files", "torch_utils.ranks"),
        ("torch_utils.ranks", "kd_plugin.errors"),
        ("kd_plugin.errors", "dnnlib.errors"),
        ("training.loop", "train"),
    ],
)
def test_the_layer_check_can_fail(importer: str, imported: str) -> None:
    assert layer_violations(importer, {imported})


def test_the_cycle_check_can_fail(tmp_path: Path) -> None:
    known = {name: tmp_path / f"{name}.py" for name in ("a", "b", "c")}
    for name, line in (("a", "import b"), ("b", "from c import x"), ("c", "def f():\n    import a")):
        known[name].write_text(line)
    assert cycle(known) == []  # an import inside a function closes no cycle
    known["c"].write_text("import a")
    assert set(cycle(known)) == {"a", "b", "c"}

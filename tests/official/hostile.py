"""Hostile pickles, and a program that reads them all and reports on each: `python -m tests.official.hostile FOLDER`."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from tests.official.stand_in import (
    NOT_RUN,
    called,
    data,
    named,
    official_pickle,
    small_networks,
    tensorflow_pickle,
    text,
    whole,
)

CALL = "torch_utils.persistence", "_reconstruct_persistent_obj"
TENSOR, PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
LOAD = "torch.storage", "_load_from_bytes"
ARRAY, SCALAR = ("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar")
COMMAND = text("touch ran")


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _long(value: int) -> bytes:
    raw = value.to_bytes(9, "little")
    return b"\x8a\x09" + raw


def _ints(*values: int) -> bytes:
    return b"(" + b"".join(_long(value) for value in values) + b"t"


def _stored(count: int, numbers: bytes, kind: str = "FloatStorage", extra: bytes = b"") -> bytes:
    """What torch.save writes of a storage."""
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    reference = b"(" + text("storage") + named("torch", kind) + text("0") + text("cpu") + _int(count) + b"NtQ"
    pickles = (pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), system)
    return b"".join(pickles) + b"\x80\x02" + extra + reference + b"." + pickle.dumps(["0"], 2) + _count(count) + numbers


def _count(count: int) -> bytes:
    return struct.pack("<q", count)


def _storage(count: int = 4) -> bytes:
    return called(*LOAD, data(_stored(count, bytes(4 * count))))


def _tensor(size: bytes, stride: bytes, offset: int = 0) -> bytes:
    return called(*TENSOR, _storage(), _long(offset), size, stride, b"\x89", b"}")


def _part(kind: str = "Generator", state: bytes = b"}") -> bytes:
    meta = b"}(" + text("type") + text("class") + text("version") + b"K\x06" + text("module_src") + text(NOT_RUN)
    return called(*CALL, meta + text("class_name") + text(kind) + text("state") + state + b"u")


def _networks(part: bytes) -> bytes:
    return whole(b"}(", *(text(role) + part for role in ("G", "D", "G_ema")), b"u")


def _inside_out(levels: int) -> bytes:
    """Modules within modules."""
    state = b"}"
    for _ in range(levels):
        state = b"}" + text("_modules") + b"}" + text("x") + _part(state=state) + b"ss"
    return _networks(_part(state=state))


def _changed(**arguments: Any) -> bytes:
    """A snapshot whose generator says that it was built with other arguments."""
    networks = small_networks()
    for role in ("G", "G_ema"):
        networks[role].init_kwargs = {**networks[role].init_kwargs, **arguments}
    return official_pickle(networks)


def _colliding() -> bytes:
    """Integers that hash alike."""
    step = (1 << 61) - 1
    return whole(b"}(", *(_long(step * i) + b"N" for i in range(1, 50_000) if step * i < 1 << 71), b"u")


def _twisted() -> bytes:
    """A tuple in a tuple ... as a key: hashing it would overflow the stack."""
    return whole(b"})", b"\x85" * 400_000, b"Ns")


def _with_itself() -> bytes:
    return whole(b"]q\x00h\x00a")


def _component_of_itself() -> bytes:
    network = named("dnnlib.tflib.network", "Network") + b")\x81q\x05}("
    state = text("version") + b"K\x05" + text("variables") + b"]" + text("static_kwargs") + b"}"
    return whole(network, state, text("components") + b"}" + text("x") + b"h\x05s" + b"ub", b"h\x05h\x05\x87")


# The beginnings of the events of Python's audit that reading a file must not cause.
WATCHED = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "shutil.", "marshal.", "ctypes.")
_GOOD = "good.pkl"
HOSTILE: dict[str, Callable[[], bytes]] = {
    # Running something.
    "os.system": lambda: whole(called("os", "system", COMMAND)),
    "posix.system": lambda: whole(called("posix", "system", COMMAND)),
    "nt.system": lambda: whole(called("nt", "system", COMMAND)),
    "subprocess.Popen": lambda: whole(called("subprocess", "Popen", COMMAND)),
    "builtins.eval": lambda: whole(called("builtins", "eval", text("open('ran', 'w')"))),
    "builtins.exec": lambda: whole(called("builtins", "exec", text("open('ran', 'w')"))),
    "builtins.__import__": lambda: whole(called("builtins", "__import__", text("antigravity"))),
    "builtins.getattr": lambda: whole(called("builtins", "getattr", named("os", "path"), text("os"))),
    "a stacked global": lambda: whole(text("os"), text("system"), b"\x93", COMMAND, b"\x85R"),
    "a dotted name": lambda: whole(text("torch._utils"), text("_rebuild_parameter.__globals__"), b"\x93"),
    "a dotted module": lambda: whole(text("torch"), text("_utils.sys.modules"), b"\x93"),
    "pickle.loads": lambda: whole(called("pickle", "loads", data(whole(called("os", "system", COMMAND))))),
    "_pickle.loads": lambda: whole(called("_pickle", "loads", data(whole(called("os", "system", COMMAND))))),
    "torch.load": lambda: whole(called("torch", "load", text("other.pt"))),
    "torch.hub.load": lambda: whole(called("torch.hub", "load", text("a/b"), text("c"))),
    "numpy.load": lambda: whole(called("numpy", "load", text("other.npy"))),
    "runpy.run_path": lambda: whole(called("runpy", "run_path", text("other.py"))),
    "io.open": lambda: whole(called("io", "open", text("ran"), text("w"))),
    "shutil.rmtree": lambda: whole(called("shutil", "rmtree", text("."))),
    "webbrowser.open": lambda: whole(called("webbrowser", "open", text("http://localhost"))),
    "nested in numbers": lambda: whole(called(*LOAD, data(whole(called("os", "system", COMMAND))))),
    "nested in a storage": lambda: whole(
        called(*LOAD, data(_stored(4, bytes(16), extra=called("os", "system", COMMAND))))
    ),
    "a chain of partials": lambda: whole(
        called("functools", "partial", called("operator", "attrgetter", text("system")), named("os", "name"))
    ),
    "operator.methodcaller": lambda: whole(called("operator", "methodcaller", text("system"), COMMAND)),
    "copyreg._reconstructor": lambda: whole(called("copyreg", "_reconstructor", named("os", "PathLike"))),
    "dill": lambda: whole(called("dill._dill", "_create_function", text("code"))),
    "cloudpickle": lambda: whole(called("cloudpickle.cloudpickle", "_make_function", text("code"))),
    # Operations that official files do not have.
    "INST": lambda: whole(b"(", COMMAND, b"ios\nsystem\n"),
    "OBJ": lambda: whole(b"(", named("collections", "OrderedDict"), COMMAND, b"o"),
    "NEWOBJ_EX": lambda: whole(named("collections", "OrderedDict"), b")}\x92"),
    "EXT1": lambda: whole(b"\x82\x01"),
    "a persistent id": lambda: whole(text("os.system"), b"Q"),
    "a persistent id in text": lambda: whole(b"Pos.system\n"),
    "NEXT_BUFFER": lambda: whole(b"\x97"),
    # Memo and state.
    "a memo that is empty": lambda: whole(b"h\x07"),
    "a memo far away": lambda: whole(b"N", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\x7f"),
    "a mark in the memo": lambda: whole(b"(q\x00h\x00h\x00t"),
    "the state of a dictionary": lambda: whole(b"}}b"),
    "the state of a function": lambda: whole(named(*CALL), b"}b"),
    "the state of a network": lambda: whole(
        _part(), b"}", text("__class__"), named("collections", "OrderedDict"), b"sb"
    ),
    "a call of a dictionary": lambda: whole(b"})R"),
    "a call of a type": lambda: whole(named("numpy", "ndarray"), b")R"),
    "a dtype of objects": lambda: whole(called("numpy", "dtype", text("O8"), b"\x89", b"\x88")),
    "a list in itself": _with_itself,
    "a component of itself": _component_of_itself,
    "no stack": lambda: whole(b"R"),
    # Memory and time.
    "bytes of 4 EB": lambda: whole(b"\x8e" + struct.pack("<Q", 1 << 62)),
    "a byte array of 4 EB": lambda: whole(b"\x96" + struct.pack("<Q", 1 << 62)),
    "a text of 4 GB": lambda: whole(b"X\xff\xff\xff\xff"),
    "a frame of 4 EB": lambda: whole(b"\x95" + struct.pack("<Q", 1 << 62)),
    "an integer of 10 MB": lambda: whole(b"\x8b" + struct.pack("<i", 10_000_000) + b"\x01" * 10_000_000),
    "an integer in digits": lambda: whole(b"L" + b"9" * 1_000_000 + b"L\n"),
    "a storage of 4 TB": lambda: whole(called(*LOAD, data(_stored(1 << 30, bytes(16))))),
    "a negative storage": lambda: whole(called(*LOAD, data(_stored(-1, bytes(16))))),
    "an array of 8 TB": lambda: whole(
        called(*ARRAY, named("numpy", "ndarray"), b"K\x00\x85", data(b"b")),
        b"(K\x01" + _ints(1 << 40) + called("numpy", "dtype", text("f8")) + b"\x89" + data(b"") + b"tb",
    ),
    "a dtype of 1 GB": lambda: whole(called("numpy", "dtype", text("V1000000000"))),
    "a scalar without numbers": lambda: whole(called(*SCALAR, called("numpy", "dtype", text("f8")), data(b""))),
    "a tensor of 8 TB": lambda: whole(_tensor(_ints(1 << 41), _ints(0))),
    "a tensor beyond its numbers": lambda: whole(_tensor(_ints(2, 2), _ints(3, 1))),
    "a tensor before its numbers": lambda: whole(
        called(*TENSOR, _storage(), _int(-1), b"K\x02\x85", b"K\x01\x85", b"\x89", b"}")
    ),
    "a parameter of text": lambda: whole(called(*PARAMETER, text("data"), b"\x88", b"}")),
    "numbers unpacked a thousand times": lambda: whole(
        named(*LOAD), b"q\x00", data(_stored(250_000, bytes(1_000_000))), b"q\x01", b"h\x00h\x01\x85R" * 1000
    ),
    "two million operations": lambda: whole(b"N0" * 1_000_000),
    "lists 400,000 deep": lambda: whole(b"]" * 400_000, b"a" * 399_999),
    "tuples 500,000 deep": lambda: whole(b")" + b"\x85" * 500_000),
    "a key 400,000 deep": _twisted,
    "keys that hash alike": _colliding,
    "modules 30 deep": lambda: _inside_out(30),
    "a resolution of a million": lambda: _changed(channel_base=1 << 40, channel_max=1 << 40),
    "channels without end": lambda: _changed(channel_max=-1),
    "channels of text": lambda: _changed(channel_base="many"),
    # Not what they seem.
    "one number": lambda: whole(b"K\x01"),
    "an empty dictionary": lambda: whole(b"}"),
    "networks of nothing": lambda: _networks(_part()),
    "networks of text": lambda: whole(b"}", text("G_ema"), text("network"), b"s"),
    "cut in the middle": lambda: official_pickle(small_networks())[:60_000],
    "cut before its end": lambda: official_pickle(small_networks())[:-1],
    "TensorFlow, cut": lambda: tensorflow_pickle(small_networks())[:5_000],
    "TensorFlow of StyleGAN1": lambda: tensorflow_pickle(small_networks(), version=3),
    "only its first bytes": lambda: b"\x80\x04",
}


# The same object in many places: little to write, much to walk, hash, copy or print.
HOSTILE |= {
    "a set of shared tuples": lambda: whole(called("builtins", "set", b"](" + _shared_tuples(60) + b"e")),
    "a set of numbers that hash alike": lambda: whole(
        called("builtins", "set", b"](" + b"".join(_long(((1 << 61) - 1) * i) for i in range(1, 1000)) + b"e")
    ),
    "sets of one list": lambda: whole(
        *(named("builtins", "set"), b"q\x00](", b"".join(text(f"k{i}") for i in range(10_000)), b"eq\x01"),
        b"h\x00h\x01\x85R" * 3000,
    ),
    "a dtype of shared tuples": lambda: whole(called("numpy", "dtype", _shared_tuples(60))),
    "a version of shared lists": lambda: whole(_tensorflow(version=_shared_tuples(60)), b"q\x09h\x09h\x09\x87"),
    "a version of deep lists": lambda: whole(
        _tensorflow(version=b"]q\x02" + b"]q\x03h\x02h\x03aq\x02" * 5_000), b"q\x09h\x09h\x09\x87"
    ),
    "a network in text": lambda: whole(
        named("dnnlib.tflib.network", "Network"), text("abc"), b"\x85R", b"q\x01h\x01h\x01\x87"
    ),
    "an architecture of shared tuples": lambda: _networks(
        _part(state=b"}" + text("architecture") + _shared_tuples(60) + b"s")
    ),
    "modules in many places": lambda: _networks(_part(state=_shared_modules(8, 20))),
    "an augmentation in many places": lambda: whole(
        b"}", text("augment_pipe"), _part("AugmentPipe", _shared_modules(8, 20)), b"s"
    ),
    "components in many places": lambda: whole(
        named("dnnlib.tflib.network", "Network"), b")\x81}(", text("version"), b"K\x05", text("components"), b"}(",
        text("c0"), _tensorflow(), b"q\x08", *(text(f"c{i}") + b"h\x08" for i in range(1, 200)), b"uub",
        b"q\x09h\x09h\x09\x87",
    ),
    "a module of a tensor": lambda: _networks(
        _part(state=b"}" + text("_modules") + _tensor(_ints(2), _ints(1)) + b"s")
    ),
    "a class with escape sequences": lambda: _networks(_part("A\x1b]0;x\x07\nfake: line")),
    "a class of a megabyte": lambda: _networks(_part("A" * 1_000_000)),
}  # fmt: skip


def _shared_tuples(levels: int) -> bytes:
    """(t, t) of t = (u, u) of u = ...: 2^levels values to whoever walks them."""
    return b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(100, 100 + levels))


def _shared_modules(levels: int, places: int) -> bytes:
    state = b"}"
    for level in range(levels):
        names = b"".join(text(f"m{i}") + b"h%c" % (200 + level) for i in range(places))
        state = _part(state=state) + b"q%c0}" % (200 + level) + text("_modules") + b"}(" + names + b"us"
    return state


def _tensorflow(version: bytes = b"K\x05") -> bytes:
    state = text("version") + version + text("variables") + b"]" + text("static_kwargs") + b"}"
    return named("dnnlib.tflib.network", "Network") + b")\x81}(" + state + b"ub"


def write_all(folder: Path) -> None:
    (folder / _GOOD).write_bytes(official_pickle(small_networks()))
    for name, make in HOSTILE.items():
        (folder / f"{name}.pkl").write_bytes(make())
    with (folder / "3 GB of nothing.pkl").open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(3 << 30)


def memory() -> float:
    """The most that this process has used so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path) -> None:
    """Prints, of each file, what came of it, which events of Python's audit it caused, its seconds and megabytes."""
    from training.official.read import read_official

    events: list[str] = []
    read_official(folder / _GOOD)  # what is imported once is imported now
    paths = sorted(folder.glob("*.pkl"))
    outcomes = {}
    sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith(WATCHED) else None)
    for path in paths:
        before, start = memory(), time.perf_counter()
        events.clear()
        try:
            read_official(path)
            outcome = "read"
        except UserError as error:
            outcome = str(error).partition("was not read: ")[2] or str(error)
        seconds = time.perf_counter() - start
        seen = [event for event in events if event != "open"] + ["open"] * max(0, events.count("open") - 3)
        outcomes[path.stem] = {
            "outcome": outcome, "events": seen, "seconds": round(seconds, 3), "MB": round(memory() - before, 1)
        }  # fmt: skip
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

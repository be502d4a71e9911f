"""What official network pickles may name, and what stands for it: tensors, arrays, containers, and parts of networks.

A network's own source text, which its pickle carries and the official code executes, is left unread.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from training.official.machine import CALL_COST, Allowance, Allowed, Refused, Stateful, shown, texts, unpickle

__all__ = ["Array", "Part", "TensorFlowNetwork", "read_pickle"]

MOST_AXES = 8
LONGEST_NAME = 100
_DTYPES = {
    "f8": np.float64, "f4": np.float32, "f2": np.float16, "i8": np.int64, "i4": np.int32, "i2": np.int16,
    "i1": np.int8, "u8": np.uint64, "u4": np.uint32, "u2": np.uint16, "u1": np.uint8, "b1": np.bool_,
}  # fmt: skip
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the start of what torch.save writes in its old format


@dataclass(frozen=True)
class Part:
    """A module of an official PyTorch network, as it was saved.

    Attributes:
        kind: the name of its class.
        attributes: of the object: numbers, texts, and what torch keeps of a module.
    """

    kind: str
    attributes: Mapping[str, Any]
    allowance: Allowance = field(repr=False, compare=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those that it was built with, by name."""
        return dict(self.attributes.get("_init_kwargs") or {})

    def children(self) -> dict[str, Part]:
        """The modules in it, by name."""
        modules = self.attributes.get("_modules") or {}
        return {name: child for name, child in modules.items() if isinstance(child, Part)}

    def parts(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Part]]:
        """This module ("") and all those within it, with their paths ("synthesis.b4.conv1").

        Raises:
            Refused: some stands in it twice.
        """
        seen = set() if seen is None else seen
        self.allowance.take(CALL_COST)
        if id(self) in seen:
            raise Refused("a module stands in two places of its network")
        seen.add(id(self))
        yield prefix, self
        for name, child in self.children().items():
            yield from child.parts(f"{prefix}.{name}" if prefix else name, seen)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by the names of a state_dict."""
        found = {}
        for path, part in self.parts():
            for group in ("_parameters", "_buffers"):
                for name, value in (part.attributes.get(group) or {}).items():
                    self.allowance.take()
                    if isinstance(value, Tensor):
                        found[f"{path}.{name}" if path else name] = value
        return found


@dataclass
class TensorFlowNetwork(Stateful):
    """A network of the TensorFlow releases: version, static_kwargs, variables, components."""

    allowance: Allowance = field(repr=False, compare=False)
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused("a TensorFlow network in it has no state")
        self.state = state


@dataclass
class _DType(Stateful):
    """Of numpy."""

    name: str
    big_endian: bool = False

    @classmethod
    def named(cls, name: str, *_: Any) -> _DType:
        if type(name) is not str or name not in _DTYPES:
            raise Refused(f"it has numbers of the type {shown(name)}")
        return cls(name)

    def set_state(self, state: Any) -> None:
        self.big_endian = state[1] == ">"

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(_DTYPES[self.name]).newbyteorder(">" if self.big_endian else "<")


@dataclass
class Array(Stateful):
    """A numpy array, whose content comes after it."""

    values: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.values = _array(raw, dtype, shape, "F" if fortran else "C")


@dataclass(frozen=True)
class _Storage:
    """Of torch: a run of numbers that tensors are views of."""

    values: Tensor


def read_pickle(file: BinaryIO, size: int) -> Any:
    """The content of a network pickle.

    Args:
        file: see `unpickle`.
        size: of the file, in bytes: nothing that is read from it can be larger.

    Raises:
        Refused: see `unpickle`.
    """
    table = _Table(size)
    return unpickle(_Bounded(file, size), table.globals(), table.allowance)


class _Bounded:
    """A file of which no more is asked for than it has: Python reserves the memory for a read before it reads."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._size = size
        self._file, self.tell = file, file.tell
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self.tell()))


class _Table:
    """The globals of one file, which share its operations and what is left of `size` bytes for numbers."""

    def __init__(self, size: int) -> None:
        self.allowance = Allowance()
        self._left = size

    def globals(self) -> dict[str, Allowed]:
        calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": _new_dict,
            "dnnlib.util.EasyDict": _new_dict,
            "builtins.set": self._set,
            "__builtin__.set": self._set,
            "torch_utils.persistence._reconstruct_persistent_obj": self._part,
            "torch.storage._load_from_bytes": self._storage,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "numpy.dtype": _DType.named,
            "dnnlib.tflib.network.Network": lambda: TensorFlowNetwork(self.allowance),
        }
        for package in ("numpy.core", "numpy._core"):
            calls |= {
                f"{package}.multiarray.scalar": _scalar,
                f"{package}.multiarray._reconstruct": _new_array,
                f"{package}.numeric._frombuffer": _from_buffer,
            }
        marks = {"numpy.ndarray": Allowed("numpy.ndarray")}  # of a type, for _reconstruct
        return marks | {name: Allowed(name, call) for name, call in calls.items()}

    def _storage(self, raw: bytes) -> _Storage:
        self._left -= len(raw)
        if self._left < 0:
            raise Refused("it unpacks more numbers than it has bytes")
        return _Storage(_stored(raw, self.allowance))

    def _set(self, items: list[Any]) -> set[str]:
        if type(items) is not list:
            raise TypeError
        self.allowance.take(len(items))
        return set(texts(items))

    def _part(self, meta: Any) -> Part:
        kind, state = meta["class_name"], meta["state"]
        if meta["type"] != "class" or type(kind) is not str or not kind.isidentifier() or len(kind) > LONGEST_NAME:
            raise ValueError
        for group in ("_parameters", "_buffers", "_modules", "_init_kwargs"):
            held = state.get(group)
            if held is not None and type(held) is not dict:
                raise ValueError
            if any(len(name) > LONGEST_NAME for name in held or ()):
                raise ValueError
        return Part(kind, state, self.allowance)


def _new_dict(*items: Any) -> dict[str, Any]:
    if any(type(item) not in (tuple, list, dict) or item for item in items):
        raise TypeError
    return {}


def _stored(raw: bytes, allowance: Allowance) -> Tensor:
    """The numbers in what torch.save writes of a storage: four small pickles, a count, and the numbers."""
    file = io.BytesIO(raw)
    types = {f"torch.{name}": Allowed(name) for name in _STORAGES}
    references: list[Any] = []
    if unpickle(file, {}, allowance) != _MAGIC or unpickle(file, {}, allowance) != _PROTOCOL:
        raise Refused("its numbers are stored in another format than torch's")
    system = unpickle(file, {}, allowance)
    if not system["little_endian"]:
        raise Refused("its numbers were stored by a big-endian machine")
    unpickle(file, types, allowance, references.append)
    unpickle(file, {}, allowance)
    (reference,) = references
    dtype = _STORAGES[reference[1].name]
    (count,) = struct.unpack("<q", file.read(8))
    numbers = file.read()
    if count < 0 or len(numbers) != count * dtype.itemsize:
        raise Refused(f"a list of {count} numbers in it has {len(numbers)} bytes")
    if count == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(numbers), dtype=dtype)


def _tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view within the storage, no larger than it."""
    values = storage.values
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > MOST_AXES or not all(type(x) is int and x >= 0 for x in numbers):
        raise ValueError
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count > values.numel() or (count and last >= values.numel()):
        raise Refused(f"a tensor of shape {list(size)} in it reaches beyond its {values.numel()} numbers")
    return values.as_strided(tuple(size), tuple(stride), offset)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError
    return data


def _scalar(dtype: _DType, raw: bytes) -> int | float | bool:
    values = _array(raw, dtype, (1,), "C")
    number: int | float | bool = values.tolist()[0]
    return number


def _new_array(*_: Any) -> Array:
    return Array()


def _from_buffer(raw: bytes, dtype: _DType, shape: Any, order: str) -> Array:
    return Array(_array(raw, dtype, shape, order))


def _array(raw: bytes, dtype: _DType, shape: Any, order: str) -> np.ndarray:
    if len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError
    if math.prod(shape) * dtype.numpy.itemsize != len(raw):
        raise Refused(f"an array of shape {list(shape)} in it has {len(raw)} bytes")
    return np.frombuffer(raw, dtype.numpy).reshape(tuple(shape), order="F" if order == "F" else "C")

"""A pickle machine that runs nothing: it builds numbers, texts, containers, and what a closed table of globals allows.

Python's own machine calls whatever a file names. This one knows only the operations that official network files
contain, never imports, and calls only the functions of its table. What it cannot vouch for, it refuses with the reason.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

__all__ = ["CALL_COST", "Allowance", "Allowed", "Refused", "Stateful", "shown", "texts", "unpickle"]

MOST_OPERATIONS = 1_000_000  # the largest official file has about 100,000
MOST_LEVELS = 100  # containers within containers
MOST_WAITING = 10_000  # values on the stack: some for each level
MOST_BITS = 128  # of an integer
_SHOWN = 60  # characters of a name from the file, in messages


class Refused(Exception):
    """The file is not read, and why."""


class Readable(Protocol):
    """What is asked of a file."""

    def read(self, count: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


class Stateful:
    """An object whose state the file sets after making it."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Allowed:
    """What stands for a global of the file.

    Attributes:
        name: of the global.
        call: what takes the place of calling it; None: it may only be passed on, as a mark of a type.
    """

    name: str
    call: Callable[..., Any] | None = None


@dataclass
class Allowance:
    """How much work may still be done on a file: operations of its pickles, and steps of walks over what they built."""

    left: int = MOST_OPERATIONS

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused(f"it takes more than {MOST_OPERATIONS} operations to read")


_MARK = object()
CALL_COST = 10  # operations


def unpickle(
    file: Readable,
    table: Mapping[str, Allowed],
    allowance: Allowance,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle that starts at the file's position, which is left behind its end.

    Args:
        table: by 'module.name', what the file may name.
        allowance: what the operations are counted against.
        persistent: what stands for an object that the file refers to by an id; None: there may be none.

    Raises:
        Refused: anything else in it, a damaged or truncated file, too many operations or levels.
    """
    machine = _Machine(table, allowance, persistent)
    try:
        for operation, argument, _ in pickletools.genops(cast(BinaryIO, file)):
            allowance.take()
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"it is damaged or cut off ({shown(str(error))})") from error
    raise Refused("it ends before its last operation")


class _Machine:
    def __init__(
        self, table: Mapping[str, Allowed], allowance: Allowance, persistent: Callable[[Any], Any] | None
    ) -> None:
        self._table = table
        self._allowance = allowance
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._levels: dict[int, tuple[int, Any]] = {}  # by id; holds the container, so that its id stays its own
        self._inside: set[int] = set()  # ids of those within others

    def step(self, name: str, argument: Any) -> None:
        operation = _OPERATIONS.get(name)
        if operation is None:
            raise Refused(f"it has the operation {name}, which official network files do not contain")
        operation(self, argument)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise Refused("it is damaged (a mark stands where a value should)")
        return value

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def top(self, kind: type) -> Any:
        value = self._stack[-1]
        if value is _MARK or not isinstance(value, kind):
            raise Refused(f"it is damaged (something else stands where a {kind.__name__} should)")
        return value

    def nest(self, container: Any, parts: list[Any]) -> Any:
        """Notes that `container` holds `parts`, and returns it. Once within another it is final, so there is no ring,
        and its level is known."""
        inner = [id(part) for part in parts if id(part) in self._levels]
        if parts and (id(container) in self._inside or id(container) in inner):
            raise Refused("a container in it is changed after it was put into another")
        deepest = max((self._levels[part][0] for part in inner), default=0)
        level = max(deepest + 1, self._levels.get(id(container), (0,))[0])
        if len(self._stack) > MOST_WAITING:
            raise Refused(f"more than {MOST_WAITING} values in it wait to be put together")
        if level > MOST_LEVELS:
            raise Refused(f"its containers are nested more than {MOST_LEVELS} levels deep")
        self._levels[id(container)] = (level, container)
        self._inside.update(inner)
        return container

    def make(self, container: Any, parts: list[Any]) -> None:
        self.push(self.nest(container, parts))

    def remember(self, index: int) -> None:
        self._memo[index] = self.top(object)

    def remember_next(self) -> None:
        self.remember(len(self._memo))

    def set_items(self, values: list[Any]) -> None:
        """Keys are texts: comparing anything else could take the machine's time or stack."""
        target = self.top(dict)
        if len(values) % 2:
            raise Refused("it is damaged (a key without a value)")
        keys = texts(values[0::2])
        target.update(zip(keys, values[1::2], strict=True))
        self.nest(target, values[1::2])

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it is damaged (the name of a global is not a text)")
        full = f"{module}.{name}"
        if full not in self._table:
            raise Refused(_why_not(full))
        self.push(self._table[full])

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Allowed) or function.call is None or not isinstance(arguments, tuple):
            named = f" ({function.name})" if isinstance(function, Allowed) else ""
            raise Refused(f"it calls what is not a function{named}")
        self._allowance.take(CALL_COST)
        try:
            made = function.call(*arguments)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"it calls {function.name} with arguments that no official file has") from error
        if type(made) in (int, float, bool) or any(made is argument for argument in arguments):
            self.push(made)
        else:
            self.make(made, list(arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if not isinstance(target, Stateful):
            raise Refused(f"it sets the state of a {type(target).__name__}, which official files do not")
        try:
            target.set_state(state)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"the state of a {type(target).__name__} in it is not what official files have") from error
        self.nest(target, [state])

    def refer(self) -> None:
        if self._persistent is None:
            raise Refused("it refers to an object outside the file (a persistent id)")
        self.push(self._persistent(self.pop()))


def texts(values: list[Any]) -> list[str]:
    """
    Raises:
        Refused: some are none. Comparing or hashing anything else might never end.
    """
    for value in values:
        if type(value) is not str:
            raise Refused(f"a dictionary or set in it has a key of the type {type(value).__name__}, expected a text")
    return values


def shown(value: Any) -> str:
    """A value of the file for a message or a screen: in one short line, nothing in it moves the cursor."""
    if type(value) is str:
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value[:_SHOWN])
    return repr(value)[:_SHOWN] if type(value) in (int, float, bool, type(None)) else f"a {type(value).__name__}"


def _why_not(name: str) -> str:
    if name.startswith(("dill.", "cloudpickle.")):
        return f"it was saved by {name.partition('.')[0]}, whose files are programs ({shown(name)})"
    return f"it names {shown(name)}, which is not in the table of what official network files need"


def _number(machine: _Machine, value: int) -> None:
    if value.bit_length() > MOST_BITS:
        raise Refused(f"it has an integer of more than {MOST_BITS} bits")
    machine.push(value)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def operation(machine: _Machine, _: Any) -> None:
        parts = [machine.pop() for _ in range(count)][::-1]
        machine.make(tuple(parts), parts)

    return operation


def _extend(machine: _Machine, parts: list[Any]) -> None:
    target = machine.top(list)
    target.extend(parts)
    machine.nest(target, parts)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine, [value])


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _add_items(machine: _Machine, _: Any) -> None:
    values = texts(machine.pop_to_mark())
    machine.top(set).update(values)


def _marked_tuple(machine: _Machine, _: Any) -> None:
    parts = machine.pop_to_mark()
    machine.make(tuple(parts), parts)


def _marked_list(machine: _Machine, _: Any) -> None:
    parts = machine.pop_to_mark()
    machine.make(parts, parts)


def _marked_dict(machine: _Machine, _: Any) -> None:
    parts = machine.pop_to_mark()
    machine.push({})
    machine.set_items(parts)


def _stacked_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.find(module, name)


_Operation = Callable[[_Machine, Any], object]
_OPERATIONS: dict[str, _Operation] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.make([], []),
    "EMPTY_DICT": lambda machine, _: machine.make({}, []),
    "EMPTY_SET": lambda machine, _: machine.make(set(), []),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _number),
    **dict.fromkeys(
        (
            *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        ),
        lambda machine, value: machine.push(value),
    ),
    "BYTEARRAY8": lambda machine, value: machine.push(bytes(value)),
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.push(_MARK),
    "POP": lambda machine, _: machine._stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "TUPLE": _marked_tuple,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": _marked_list,
    "APPEND": _append,
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_to_mark()),
    "DICT": _marked_dict,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "ADDITEMS": _add_items,
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember_next(),
    "BINGET": lambda machine, index: machine.push(machine._memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine._memo[index]),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "STACK_GLOBAL": _stacked_global,
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.refer(),
}

"""Read the pickle inside a .pth as data: a small stack machine that can build records and nothing else.

A pickle is a program, and Python's own unpickler calls whatever it names. Here nothing is imported, looked up
or called. A name in ALLOWED becomes a `Symbol`; "calling" it gives one of the records below. All other names
and instructions are refused. `OPCODES_LIMIT` bounds work and memory.

Opcodes: Python's `pickletools`. What torch writes: torch/serialization.py and torch/_utils.py, BSD-3-Clause.
"""

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rwkv_engine.checkpoints.pickle_names import STORAGES, TYPES, UNREAD
from rwkv_engine.errors import shown

OPCODES_LIMIT = 400_000  #: a checkpoint needs about 60 per tensor
ARGUMENTS_LIMIT = 8
AXES_LIMIT = 8
PAIRS_LIMIT = 100  #: of a dict made by one call, as calls can repeat; normal dicts are filled afterwards

#: an instruction's byte -> its description in `pickletools`
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Refused(Exception):
    """Why this pickle is not read, as the middle of a sentence."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name in the pickle; it does nothing."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of `count` elements of type `dtype` in the archive's entry `data/<key>`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor: element i, j ... is element offset + i * strides[0] + j * strides[1] ... of the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """Other things that trainers save beside tensors, such as a NumPy number; the content is dropped."""

    name: str


class _Mark:
    """The object that MARK puts on the stack; compared by identity."""


MARK = _Mark()


def read_pickle(content: bytes) -> Any:
    """The object that a pickle describes: dicts, lists, tuples, numbers, text, and `Stored` for tensors.

    Raises Refused if it is damaged, or needs anything but tensors and plain containers.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for name, argument in _instructions(content):
            if name == "STOP":
                return stack.pop()
            _step(name, argument, stack, memo)
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Refused(f"it is damaged ({type(error).__name__})") from error
    raise Refused(f"it has no end within {OPCODES_LIMIT} instructions")


def _instructions(content: bytes) -> Iterator[tuple[str, Any]]:
    """(opcode name, argument) in order; an unknown opcode is refused before its argument is read."""
    file = io.BytesIO(content)
    for _ in range(OPCODES_LIMIT):
        opcode = OPCODES.get(file.read(1))
        if opcode is None:
            raise Refused("it is damaged, or ends early")
        if opcode.name not in SERVED:
            raise Refused(f"it uses the instruction {opcode.name}, which no checkpoint needs")
        if opcode.name == "GLOBAL":  # two lines; `pickletools` would treat a backslash as an escape
            yield opcode.name, (file.readline().decode().rstrip("\n"), file.readline().decode().rstrip("\n"))
        else:
            yield opcode.name, opcode.arg.reader(file) if opcode.arg else None


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Execute one instruction."""
    if name in PUSHED:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name]())
    elif name in TUPLES:
        stack.append(_popped(stack, TUPLES[name]))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in ACTIONS:
        ACTIONS[name](stack)
    elif name == "GLOBAL":
        stack.append(_symbol(*argument))


def _popped(stack: list[Any], count: int) -> tuple[Any, ...]:
    """Remove and return the last `count` objects of the stack."""
    if count > len(stack):
        raise IndexError(count)
    values = tuple(stack[len(stack) - count :])
    del stack[len(stack) - count :]
    return values


def _marked(stack: list[Any]) -> list[Any]:
    """Remove the last mark and all objects after it; return the objects."""
    values: list[Any] = []
    while (value := stack.pop()) is not MARK:
        values.append(value)
    values.reverse()
    return values


def _tuple(stack: list[Any]) -> None:
    stack.append(tuple(_marked(stack)))


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    _container(stack, list).append(value)


def _appends(stack: list[Any]) -> None:
    values = _marked(stack)
    _container(stack, list).extend(values)


def _set_item(stack: list[Any]) -> None:
    key, value = _popped(stack, 2)
    _put(_container(stack, dict), [key, value])


def _set_items(stack: list[Any]) -> None:
    pairs = _marked(stack)
    _put(_container(stack, dict), pairs)


def _container(stack: list[Any], kind: type) -> Any:
    """The top of the stack, which must be a list or dict that this machine made."""
    if type(stack[-1]) is not kind:
        raise Refused(f"it fills something that is no {kind.__name__}")
    return stack[-1]


def _put(target: dict[Any, Any], pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if type(key) not in KEYS:  # hashing a nested tuple could take forever
            raise Refused(f"it has a dict with a key of type {type(key).__name__}")
        target[key] = value


def _build(stack: list[Any]) -> None:
    """Drop attributes of an object, such as an OrderedDict's `_metadata` or a NumPy dtype's byte order."""
    stack.pop()
    if type(stack[-1]) is not Unread:
        _container(stack, dict)


def _stack_global(stack: list[Any]) -> None:
    stack.append(_symbol(*_popped(stack, 2)))


def _symbol(module: Any, name: Any) -> Symbol:
    if (
        type(module) is not str or type(name) is not str
    ):  # formatting or hashing a nested tuple could take forever
        raise Refused("it names something with no text")
    symbol = Symbol(module, name)
    known = (module, name) in ALLOWED or (module, name) in UNREAD
    if not known and not (module in ("torch", "torch.storage") and (name in STORAGES or name in TYPES)):
        raise Refused(f"it wants {shown(f'{module}.{name}')}, which is no part of a checkpoint")
    return symbol


def _reduce(stack: list[Any]) -> None:
    function, arguments = _popped(stack, 2)
    if type(function) is not Symbol or (function.module, function.name) not in CALLED:
        raise Refused("it calls something that is no function")
    if type(arguments) is not tuple or len(arguments) > ARGUMENTS_LIMIT:
        raise Refused("it calls a function with no proper arguments")
    if (function.module, function.name) in UNREAD:
        stack.append(Unread(function.name))
        return
    stack.append(ALLOWED[function.module, function.name](*arguments))


def _persistent(stack: list[Any]) -> None:
    """A storage: ("storage", class, key, device, count)."""
    kind, symbol, key, _, count = stack.pop()
    if kind != "storage" or type(symbol) is not Symbol or symbol.name not in STORAGES:
        raise Refused("it refers to something outside that is no storage")
    if type(key) is not str or type(count) is not int or not 0 <= count < 1 << 62:
        raise Refused("a storage in it has no proper name or length")
    stack.append(Storage(STORAGES[symbol.name], key, count))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)."""
    if (
        type(shape) is not tuple
        or type(strides) is not tuple
        or len(shape) != len(strides)
        or len(shape) > AXES_LIMIT
    ):
        raise Refused("a tensor in it has no proper shape or strides")
    numbers = (offset, *shape, *strides)
    if type(storage) is not Storage or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise Refused("a tensor in it has no proper storage, offset, shape or strides")
    return Stored(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Stored:
    """torch._utils._rebuild_parameter(data, requires_grad, hooks)."""
    if type(tensor) is not Stored:
        raise Refused("a parameter in it holds no tensor")
    return tensor


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    """collections.OrderedDict() or OrderedDict([[key, value] ...])."""
    filled: dict[Any, Any] = {}
    pairs = arguments[0] if arguments else ()
    if type(pairs) not in (list, tuple) or len(pairs) > PAIRS_LIMIT:
        raise Refused("a dict in it is made of no pairs, or of too many")
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise Refused("a dict in it is made of no pairs")
        _put(filled, list(pair))
    return filled


#: functions that a checkpoint may name -> what is called instead
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): lambda *_: {},
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}

#: functions that may be called, and types of dict keys
CALLED = ALLOWED.keys() | UNREAD
KEYS = (str, int, float, bool, bytes, type(None))

#: opcodes that push their argument; those of protocol 0 (text) are missing, as torch does not write them
PUSHED = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Unread("set"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ACTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": _tuple,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "BUILD": _build,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BINPERSID": _persistent,
    "NEWOBJ": _reduce,
    "FROZENSET": lambda stack: stack.append(Unread(f"{len(_marked(stack))} things")),
    "ADDITEMS": _marked,
    "POP": lambda stack: stack.pop(),
    "POP_MARK": _marked,
}
SERVED = (
    PUSHED
    | CONSTANTS.keys()
    | TUPLES.keys()
    | ACTIONS.keys()
    | frozenset("PROTO FRAME GLOBAL MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET STOP".split())
)

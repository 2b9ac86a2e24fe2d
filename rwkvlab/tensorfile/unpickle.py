"""A small interpreter for the pickle inside a .pth: it builds descriptions of tensors and can call nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from rwkvlab.errors import FormatError, LimitError, SchemaError, UnsafeFileError, show
from rwkvlab.tensorfile.torchnames import CALLS, OTHER_KINDS, STORAGES, Global, Storage, Strided

MAX_OPCODES = 300_000  # the largest published model needs about 100 000
MAX_MARKS, MAX_KEY = 1_000, 20  # torch.save names storages by numbers
ASK = "ask its author for a .safetensors file, or convert it where you trust it"

_MARK = object()
_RUNS_CODE = {0x69: "INST", 0x6F: "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4"}


class _Machine:
    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks, self.storages = 0, dict[str, Storage]()

    def fail(self, what: str, kind: type = FormatError, remedy: str = "download or save it again") -> NoReturn:
        raise kind(f"{self.name}: data.pkl, byte {self.at:,}: {what}; {remedy}")

    def byte(self) -> int:
        if self.at >= len(self.data):
            self.fail("the pickle ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def whole(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            self.fail("the pickle ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 500)
        if end < 0:
            self.fail("the name of a global has no end")
        return self.text(self.take(end + 1 - self.at)[:-1])

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.fail("a text that is not UTF-8")

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("nothing on the stack")
        value = self.stack.pop()
        if not isinstance(value, kind):
            self.fail(f"an unexpected {type(value).__name__}")
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.fail("no mark on the stack")
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                break
        items = self.stack[index + 1 :]
        del self.stack[index:]
        self.marks -= 1
        return items

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self.byte()
            if code == 0x2E:  # STOP
                if len(self.stack) != 1 or self.at != len(self.data):
                    self.fail("values or bytes are left over at the end")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is not None:
                step(self)
            elif code in _RUNS_CODE:
                self.fail(f"opcode {_RUNS_CODE[code]} makes an object", UnsafeFileError, ASK)
            else:
                self.fail(f"opcode 0x{code:02x}, which torch.save never writes")
        self.fail(f"more than {MAX_OPCODES:,} opcodes", LimitError)

    def get(self, key: int) -> None:
        if key not in self.memo:
            self.fail(f"nothing was stored under {key}")
        self.stack.append(self.memo[key])

    def put(self, key: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("nothing to store")
        self.memo[key] = self.stack[-1]

    def group(self, size: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(size)][::-1]))

    def mark(self) -> None:
        if self.marks >= MAX_MARKS:
            self.fail(f"nested more than {MAX_MARKS} deep")
        self.marks += 1
        self.stack.append(_MARK)

    def protocol(self) -> None:
        version = self.byte()
        if version not in (2, 3):
            self.fail(f"pickle protocol {version}, need 2", remedy="save it with torch.save's own pickle_protocol")

    def long(self) -> None:
        self.stack.append(self.whole(self.byte(), signed=True))

    def find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full in OTHER_KINDS:
            allowed = "float64, float32, float16, bfloat16"
            self.fail(f"tensors of the kind {show(full)}", SchemaError, f"need {allowed}: save it in one of these")
        if full not in STORAGES and full not in CALLS:
            self.fail(f"asks for {show(full)}, which is no plain tensor", UnsafeFileError, ASK)
        self.stack.append(Global(full))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(items) % 2:
            self.fail("entries without a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                self.fail(
                    f"a key that is no string but {type(key).__name__}", SchemaError, "name the tensors by strings"
                )
            if key in target:
                self.fail(f"key {show(key)} is there twice")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if not self.stack or not isinstance(self.stack[-1], list):
            self.fail("items without a list")
        self.stack[-1].extend(items)

    def persistent(self) -> None:
        match self.pop():
            case ("storage", Global(name=name), str(key), str(), int(numel)) if (
                name in STORAGES and len(key) <= MAX_KEY
            ):
                storage = Storage(STORAGES[name], key, numel)
                # torch reads every further one as the first says
                if self.storages.setdefault(key, storage) != storage:
                    self.fail(f"storage {show(key)} is described in two ways")
                self.stack.append(storage)
            case _:
                self.fail("a storage that is not described as torch.save does")

    def reduce(self) -> None:
        args, function = self.pop(tuple), self.pop(Global)
        match function.name.rpartition(".")[2], args:
            case "OrderedDict", ():
                self.stack.append({})
            case "_rebuild_tensor_v2", (Storage() as storage, offset, shape, stride, bool(), dict() as hooks, *rest):
                if hooks or (rest and rest != [None] and rest != [{}]):
                    self.fail("a tensor with hooks or flags", UnsafeFileError, ASK)
                self.stack.append(Strided(storage, offset, shape, stride))
            case "_rebuild_parameter", (Strided() as tensor, bool(), dict() as hooks):
                if hooks:
                    self.fail("a parameter with hooks", UnsafeFileError, ASK)
                self.stack.append(tensor)
            case name, _:
                self.fail(f"{name} with arguments that torch.save never writes", UnsafeFileError, ASK)

    def build(self) -> None:
        """Accept what a module's state_dict carries, a versions table without tensors, and drop it."""
        state, target = self.pop(), self.stack[-1] if self.stack else None
        plain = isinstance(state, dict) and set(state) == {"_metadata"} and isinstance(state["_metadata"], dict)
        if not isinstance(target, dict) or not plain:
            self.fail("an object with attributes", UnsafeFileError, ASK)


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    0x28: _Machine.mark,
    0x7D: lambda m: m.stack.append({}),
    0x5D: lambda m: m.stack.append([]),
    0x4E: lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    0x29: lambda m: m.stack.append(()),
    0x4B: lambda m: m.stack.append(m.byte()),
    0x4D: lambda m: m.stack.append(m.whole(2)),
    0x4A: lambda m: m.stack.append(m.whole(4, signed=True)),
    0x68: lambda m: m.get(m.byte()),
    0x6A: lambda m: m.get(m.whole(4)),
    0x71: lambda m: m.put(m.byte()),
    0x72: lambda m: m.put(m.whole(4)),
    0x85: lambda m: m.group(1),
    0x86: lambda m: m.group(2),
    0x87: lambda m: m.group(3),
    0x58: lambda m: m.stack.append(m.text(m.take(m.whole(4)))),
    0x8A: _Machine.long,
    0x63: lambda m: m.find(m.line(), m.line()),
    0x74: lambda m: m.stack.append(tuple(m.pop_mark())),
    0x73: lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    0x75: lambda m: m.set_items(m.pop_mark()),
    0x61: lambda m: m.append([m.pop()]),
    0x65: lambda m: m.append(m.pop_mark()),
    0x51: _Machine.persistent,
    0x52: _Machine.reduce,
    0x62: _Machine.build,
}


def unpickle(data: bytes, name: str) -> Any:
    """Return what the pickle describes: dicts, lists, tuples, numbers, texts, and `Strided` for tensors.

    Raises UnsafeFileError at the first name outside the fixed list, FormatError, SchemaError or LimitError otherwise.
    """
    return _Machine(data, name).run()

"""Rows 1, 2, 3, 5, 12, 13, 14, 17, 18, 40 and 41: pickles that ask for code, for objects, for memory, or lie."""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile

import builders as b
import torch
from builders import STATE, archive, name_of, pickled, plain, saved, tensor, text
from corpus import Case

from rwkvlab.errors import FormatError, LimitError, SchemaError, UnsafeFileError

WRITE = "open('canary', 'w')"
# what it calls, with these arguments; all would leave a trace in the folder if they ran
GADGETS = {
    "os.system": ("touch canary",), "posix.system": ("touch canary",), "nt.system": ("touch canary",),
    "os.popen": ("touch canary",), "os.execvp": ("touch", ["touch", "canary"]), "os.mkdir": ("canary",),
    "os.putenv": ("canary", "1"), "builtins.eval": (WRITE,), "builtins.exec": (WRITE,),
    "builtins.getattr": ("canary", "encode"), "builtins.__import__": ("antigravity",),
    "builtins.open": ("canary", "w"), "builtins.compile": (WRITE, "canary", "eval"), "__builtin__.eval": (WRITE,),
    "subprocess.Popen": (["touch", "canary"],), "subprocess.run": (["touch", "canary"],),
    "subprocess.getoutput": ("touch canary",), "runpy.run_path": ("canary",), "runpy._run_code": (WRITE, {}),
    "webbrowser.open": ("http://127.0.0.1:9/canary",), "code.interact": (), "code.InteractiveInterpreter": (),
    "pty.spawn": ("canary",), "shutil.rmtree": ("canary",), "shutil.copyfile": ("/etc/hostname", "canary"),
    "torch.load": ("canary",), "torch.hub.load": ("a/b", "canary"), "torch.jit.load": ("canary",),
    "torch.storage._load_from_bytes": (text(b"abc"),), "torch.serialization.load": ("canary",),
    "torch.utils.cpp_extension.load_inline": ("canary", ""), "torch.save": (None, "canary"),
    "torch._dynamo.utils.import_submodule": ("canary",), "torch._inductor.codecache.PyCodeCache.load": (WRITE,),
    "torch.fx.graph_module._exec_with_source": (WRITE, {}), "torch._C._jit_tree_views.FilterMapIntLiteral": (),
    "numpy.load": ("canary",), "numpy.core.multiarray._reconstruct": (), "numpy.f2py.crackfortran.getlincoef": (),
    "functools.partial": (name_of("os.system"), "touch canary"), "functools.reduce": (name_of("os.system"), [1]),
    "operator.attrgetter": ("system",), "operator.methodcaller": ("system", "touch canary"),
    "types.CodeType": (0,), "types.FunctionType": (None, {}), "importlib.import_module": ("antigravity",),
    "pickle.loads": (text(b"cos\nsystem\n(S'touch canary'\ntR."),), "pickle._Unpickler": (), "marshal.loads": ("",),
    "ctypes.CDLL": ("canary.so",), "socket.create_connection": (("127.0.0.1", 9),), "socket.socket": (),
    "pathlib.Path.write_text": ("canary", "x"), "pathlib.PosixPath": ("canary",), "timeit.timeit": (WRITE,),
    "pdb.run": (WRITE,), "bdb.Bdb": (), "cProfile.run": (WRITE,), "profile.run": (WRITE,),
    "idlelib.pyshell.ModifiedInterpreter": (), "idlelib.run.Executive.runcode": (WRITE,),
    "asyncio.create_subprocess_shell": ("touch canary",), "multiprocessing.Process": (), "threading.Thread": (),
    "copyreg._reconstructor": (name_of("os.system"), name_of("os.system"), None), "copyreg.__newobj__": (),
    "collections.namedtuple": ("canary", "x"), "collections.OrderedDict.fromkeys": ([1],), "sys.exit": (3,),
    "tempfile.mkdtemp": ("", "canary", "."), "zipimport.zipimporter": ("canary",), "pip.main": (["list"],),
    "doctest.debug_script": (WRITE,), "sqlite3.connect": ("canary",), "logging.FileHandler": ("canary",),
    "torch.nn.modules.linear.Linear": (1, 1), "torch.Tensor": (5,), "__main__.Canary": (),
}  # fmt: skip


def gadget(name):
    """The pickle of a call."""
    return pickled(("w", name_of(name) + plain(tuple(GADGETS[name])) + b"R"))


def asks(name, arguments=()):
    return archive(pickled(("w", name_of(name) + plain(tuple(arguments)) + b"R")))


def raw(opcodes, protocol=2):
    return archive(b"\x80" + bytes([protocol]) + opcodes)


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


GLOBAL_TO_STACK = short("os") + short("system") + b"\x93" + short("touch canary") + b"\x85R."
LATE = pickled(("w", tensor()), ("v", name_of("os.system") + plain(("touch canary",)) + b"R"))
LIKE = "collections\nOrderedDict"
VARIANTS = {
    "by_inst": (raw(b"(" + text("touch canary") + b"ios\nsystem\n."), "opcode INST"),
    "by_obj": (raw(b"(" + name_of("os.system") + text("touch canary") + b"o."), "'os.system'"),
    "by_obj_alone": (raw(b"(" + name_of("collections.OrderedDict") + b"o."), "opcode OBJ"),
    "by_newobj": (raw(name_of("collections.OrderedDict") + b")\x81."), "opcode NEWOBJ"),
    "by_newobj_ex": (raw(name_of("collections.OrderedDict") + b")}\x92."), "opcode NEWOBJ_EX"),
    "by_extension": (raw(b"\x82\x01."), "opcode EXT1"),
    "by_extension_4": (raw(b"\x84\x01\0\0\0."), "opcode EXT4"),
    "by_build": (raw(b.EMPTY + plain({"__setstate__": name_of("collections.OrderedDict")}) + b"b."), "attributes"),
    "by_build_of_a_tuple": (raw(b.EMPTY + plain((None, {"x": 1})) + b"b."), "attributes"),
    "by_attribute_of_a_call": (raw(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n."), "_rebuild_tensor_v2.__glob"),
    "by_attribute_of_a_class": (raw(f"c{LIKE}.__init__.__globals__\n.".encode()), "__globals__"),
    "by_carriage_return": (raw(f"c{LIKE}\r\n.".encode()), "OrderedDict\\x0d"),
    "by_cyrillic_letter": (raw("c\u043es\nsystem\n.".encode()), "asks for"),
    "by_escape_sequence": (raw(b"cos\x1b[2J\nsystem\n."), "\\x1b"),
    "by_a_long_name": (raw(b"c" + b"o" * 200 + b"\n" + b"s" * 200 + b"\n."), "asks for"),
    "after_good_tensors": (archive(LATE), "'os.system'"),
    "storage_from_file": (raw(b"ctorch\nFloatStorage.from_file\n."), "FloatStorage.from_file"),
    "in_the_key_of_a_storage": (
        archive(pickled(("w", plain(("storage", name_of("os.system"), "0", "cpu", 6)) + b"Q"))), "'os.system'"),
}  # fmt: skip

ROW_1 = [Case(1, f"{name}.pth", asks(name, args), UnsafeFileError, f"'{name}'") for name, args in GADGETS.items()]
ROW_1 += [Case(1, f"{name}.pth", data, UnsafeFileError, words) for name, (data, words) in VARIANTS.items()]
ROW_1 += [
    Case(1, "stack_global.pth", raw(GLOBAL_TO_STACK, 4), (FormatError, UnsafeFileError), "data.pkl"),
    Case(1, "stack_global_claims_2.pth", raw(GLOBAL_TO_STACK), (FormatError, UnsafeFileError), "opcode 0x8c"),
    Case(1, "text_persistent_id.pth", raw(b"Pos.system\n."), (FormatError, UnsafeFileError), "opcode 0x50"),
    Case(1, "a_whole_module.pth", saved(torch.nn.Linear(2, 2)), UnsafeFileError, "Linear"),
]


def tar(name="storages"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.size = 24
        file.addfile(info, io.BytesIO(bytes(24)))
    return out.getvalue()


def legacy(value):
    return saved(value, _use_new_zipfile_serialization=False)


def zipped(method, names=("a.pth", "b.pth", "c.pth")):
    """A zip archive of whole files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name in names:
            file.writestr(name, archive())
    return out.getvalue()


BARE = b"\x80\x02" + name_of("os.system") + plain(("touch canary",)) + b"R."
TEXT = b"cos\nsystem\n(S'touch canary'\ntR."
WEIGHT = {"w": torch.ones(2)}
# four pickles, and storages that are announced and not there
UNFILLED = legacy(WEIGHT)[:-16]

ROW_2 = [
    Case(2, "bare.pth", BARE, UnsafeFileError, "bare pickle"),
    Case(2, "bare_text.pt", TEXT, UnsafeFileError, "bare pickle"),
    Case(2, "bare_inst.pth", b"(S'touch canary'\nios\nsystem\n.", (UnsafeFileError, FormatError), "give a"),
    Case(2, "bare_dict.ckpt", pickle.dumps({"w": [1.0]}, 4), UnsafeFileError, "bare pickle"),
    Case(2, "bare_5.pkl", pickle.dumps(b"x" * 99, 5), UnsafeFileError, "bare pickle"),
    Case(2, "legacy.pth", legacy(WEIGHT), UnsafeFileError, "torch before 1.6"),
    Case(2, "legacy_protocol_4.pth", legacy(WEIGHT).replace(b"\x80\x02", b"\x80\x04", 1), UnsafeFileError, "1.6"),
    Case(2, "old.tar.pth", tar(), FormatError, "tar archive"),
    Case(2, "tar_of_a_pickle.pth", tar("pickle"), FormatError, "tar archive"),
]
ROW_3 = [
    Case(3, f"p{suffix}", data, FormatError, f"is a pickle, not the '{suffix}'")
    for suffix, data in ((".st", BARE), (".state", TEXT), (".safetensors", BARE), (".bin", BARE), (".npy", TEXT))
]
ROW_3 += [
    Case(3, "legacy.state", legacy(WEIGHT), UnsafeFileError, "torch before 1.6"),
    Case(3, "zipped.safetensors", asks("os.system", ("touch canary",)), UnsafeFileError, "'os.system'"),
    Case(3, "p.\x1b[2J", BARE, FormatError, "is a pickle, not the '.\\x1b[2j'"),
    Case(3, "p." + "q" * 240, BARE, FormatError, "is a pickle, not the '.qqq"),
]
ROW_5 = [
    Case(5, "script.pth", archive(more=[("archive/constants.pkl", b"")]), FormatError, "TorchScript"),
    Case(5, "script_code.pth", archive(more=[("archive/code/__torch__.py", b"x")]), FormatError, "TorchScript"),
    Case(5, "a.pth.gz", gzip.compress(archive()), FormatError, "gunzip"),
    Case(5, "a.pth.bz2", bz2.compress(archive()), FormatError, "bunzip2"),
    Case(5, "a.pth.xz", lzma.compress(archive()), FormatError, "unxz"),
    Case(5, "a.pth.zst", b"\x28\xb5\x2f\xfd" + bytes(90), FormatError, "unzstd"),
    Case(5, "a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(90), FormatError, "7z"),
    Case(5, "a.rar", b"Rar!\x1a\x07" + bytes(90), FormatError, "RAR"),
    Case(5, "objects.npy", b"\x93NUMPY\x01\0v\0{'descr': '|O'}" + BARE, FormatError, "NumPy"),
    Case(5, "arrays.npz", b.pack([("w.npy", b"\x93NUMPY\x01\0" + bytes(90))]), FormatError, "'w.npy'"),
    Case(5, "stored.zip", zipped(zipfile.ZIP_STORED), FormatError, "archive of other files ('a.pth', 'b.pth', …)"),
    Case(5, "deflated.zip", zipped(zipfile.ZIP_DEFLATED), FormatError, "archive of other files ('a.pth', 'b.pth', …)"),
    Case(5, "one.pth", zipped(zipfile.ZIP_DEFLATED, ["a.pth"]), FormatError, "('a.pth'), not a .pth; unpack it and"),
    Case(5, "in_a_folder.zip", zipped(0, ["m/a.pth", "m/xdata.pkl"]), FormatError, "('m/a.pth', 'm/xdata.pkl')"),
    Case(5, "named.bz2", bz2.compress(archive()), FormatError, "is bzip2-compressed; unpack it first (bunzip2)"),
    Case(5, "bzip2.7z", bz2.compress(archive()), FormatError, "in spite of its name ending in '.7z'"),
    Case(5, "m.tar.gz", gzip.compress(tar()), FormatError, "is gzip-compressed; unpack it first"),
    Case(5, "m.tbz2", bz2.compress(tar()), FormatError, "is bzip2-compressed; unpack it first"),
    Case(5, "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), FormatError, "HDF5"),
]

TIMES = 300_000
ROW_12 = [  # one loader each: 300 000 opcodes take most of a second
    Case(12, "nine_megabytes.pth",
         lambda _: raw(b"N" * (9 << 20)), LimitError, "data.pkl has 9,437,186 bytes", by="read"),
    Case(12, "nine_of_text.pth",
         lambda _: raw(text("x" * (9 << 20)) + b"."), LimitError, "at most 8,388,608", by="read"),
    Case(12, "many_opcodes.pth", lambda _: raw(b"Nq\0" * TIMES + b"."), LimitError, "300,000 opcodes", by="read"),
    Case(12, "many_marks.pth", lambda _: raw(b"(" * 2000), FormatError, "nested more than 1000", by="read"),
    Case(12, "many_lists.pth", lambda _: raw(b"]" * 600_000 + b"."), LimitError, "opcodes", by="read"),
    Case(12, "many_dicts_kept.pth", lambda _: raw(b"".join(b"}r" + struct.pack("<I", i) for i in range(TIMES)) + b"."),
         LimitError, "opcodes", by="read"),
    Case(12, "large_tuples.pth",
         lambda _: raw(b"N(" + b"h\0" * 9 + b"t."), FormatError, "nothing was stored", by="read"),
    Case(12, "wide_tuples.pth",
         lambda _: raw(b"(Nq\0" + b"h\0" * 290_000 + b"t."), FormatError, "holds a tuple", by="read"),
    Case(12, "long_numbers.pth", lambda _: raw((b"\x8a\xff" + b"\x7f" * 255) * 30_000 + b"."),
         FormatError, "left over", by="read"),
    Case(12, "many_keys.pth", lambda _: raw(b"}(" + b"".join(text(f"{i:x}") + b"N" for i in range(100_000)) + b"u."),
         FormatError, "'0': is a NoneType", by="read"),
    Case(12, "doubled_memory.pth",
         lambda _: raw(b"]q\0" + b"(h\0h\0h\0tq\0" * 70_000 + b"e."), (FormatError, LimitError),
         "data.pkl", by="read"),
]  # fmt: skip
ROW_13 = [
    Case(13, f"{index}_{name}.pth", asks(name, args), UnsafeFileError, words)
    for index, (name, args, words) in enumerate(
        [
            ("builtins.bytearray", (2**33,), "'builtins.bytearray'"),
            ("builtins.bytes", (2**33,), "'builtins.bytes'"),
            ("builtins.range", (2**62,), "'builtins.range'"),
            ("torch.FloatStorage", (2**33,), "FloatStorage with arguments"),
            ("torch.FloatTensor", (2**33,), "'torch.FloatTensor'"),
            ("torch.zeros", (2**33,), "'torch.zeros'"),
            ("collections.Counter", (), "'collections.Counter'"),
            ("collections.deque", ([], 9), "'collections.deque'"),
            ("collections.OrderedDict", ([["a", 1]],), "OrderedDict with arguments"),
            ("_codecs.encode", ("x", "latin1"), "'_codecs.encode'"),
            ("codecs.decode", ("x", "zlib"), "'codecs.decode'"),
        ]
    )
]
DEEP = b"]" * 149_000 + b"a" * 148_999 + b"."
LAUGHS = b"]q\0" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c" % (i + 1) for i in range(60)) + b"."
TUPLES = b")" + b"\x85" * 290_000 + b"."
ROW_14 = [
    Case(14, "deep_lists.pth", lambda _: raw(DEEP), FormatError, "item 0 of its list: is a list", by="read"),
    Case(14, "deep_tuples.pth", lambda _: raw(TUPLES), FormatError, "holds a tuple", by="read"),
    Case(14, "deep_dicts.pth", lambda _: raw(b"}" + (text("w") + b"}") * 99_000 + b"s" * 99_000 + b"."),
         FormatError, "'w'", by="read"),
    Case(14, "laughs.pth", raw(LAUGHS), FormatError, "left over"),
    Case(14, "laughs_as_shape.pth",
         raw(b")q\0" + b"h\0h\0\x86q\0" * 80 + b"0"), FormatError, "opcode 0x30"),
    Case(14, "laughs_as_keys.pth", raw(b"})q\0" + b"".join(b"h\0h\0\x86q\0" for _ in range(9)) + b"Ns."),
         (FormatError, SchemaError), "data.pkl"),
    Case(14, "itself.pth", raw(b"}q\0" + text("w") + b"h\0s."), FormatError, "'w': is a dict"),
    Case(14, "a_list_in_itself.pth", raw(b"]q\0h\0a."), FormatError, "item 0 of its list"),
    Case(14, "itself_as_shape.pth",
         raw(b"}(" + text("w") + tensor(shape=b"]q\x05h\x05a") + b"u."), FormatError, "shape"),
    Case(14, "itself_as_hooks.pth",
         raw(b"}(" + text("w") + tensor(hooks=b"}q\x05" + text("a") + b"h\x05s") + b"u."), UnsafeFileError, "hooks"),
    Case(14, "itself_as_metadata.pth",
         raw(b"}q\0" + plain({"_metadata": b"h\0"}) + b"b" + text("w") + b"h\0s."), FormatError, "'w'"),
]  # fmt: skip


class Wrapped(torch.Tensor):
    """A subclass, which torch.save writes by its name."""


def _views():
    half = torch.ones(2, 3, dtype=torch.complex64)
    named = torch.nn.Parameter(torch.ones(2))
    named.note = "attribute"
    marked = torch.ones(2)
    marked.note = "attribute"
    hooked = torch.ones(2, requires_grad=True)
    hooked.register_hook(print)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compressed = torch.eye(3).to_sparse_csr()
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        made = {
            "sparse": (torch.eye(3).to_sparse(), UnsafeFileError, "sparse_tensor"),
            "compressed": (compressed, UnsafeFileError, "sparse_tensor"),
            "quantised": (quantised, (UnsafeFileError, SchemaError), "data.pkl"),
            "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), UnsafeFileError, "nested_tensor"),
            "meta": (torch.ones(2, device="meta"), UnsafeFileError, "meta_tensor"),
            "wrapped": (torch.ones(2).as_subclass(Wrapped), UnsafeFileError, "_rebuild_from_type_v2"),
            "complex": (half, SchemaError, "ComplexFloat"),
        }
        kept = {
            "parameter_attribute": (named, UnsafeFileError, "parameter"),
            "tensor_attribute": (marked, UnsafeFileError, "_rebuild_from_type_v2"),
        }
        return ({k: (saved({"w": v}), *rest) for k, (v, *rest) in group.items()} for group in (made, kept))


SEVENTEEN, EIGHTEEN = _views()
EIGHTEEN |= {
    "hooks": (archive(pickled(("w", tensor(hooks=plain({"k": None}))))), UnsafeFileError, "hooks"),
    "hooks_list": (archive(pickled(("w", tensor(hooks=b"]")))), UnsafeFileError, "with arguments"),
    "grad_number": (archive(pickled(("w", tensor(grad=1)))), UnsafeFileError, "with arguments"),
    "no_tensor_parameter": (
        asks("torch._utils._rebuild_parameter", (5, False, b.EMPTY)), UnsafeFileError, "with arguments"),
    "parameter_hooks": (
        asks("torch._utils._rebuild_parameter", (tensor(), True, {"k": 1})), UnsafeFileError, "hooks"),
    "parameter_state": (
        asks("torch._utils._rebuild_parameter_with_state", (tensor(), True, b.EMPTY, {})), UnsafeFileError, "state"),
    "attributes": (raw(b.EMPTY + plain({"x": None}) + b"b."), UnsafeFileError, "attributes"),
    "changed_class": (raw(b.EMPTY + plain({"__class__": "x"}) + b"b."), UnsafeFileError, "attributes"),
    "attributes_of_a_tensor": (raw(tensor() + plain({"_metadata": b.EMPTY}) + b"b."), UnsafeFileError, "attributes"),
}  # fmt: skip
ROW_17 = [Case(17, f"{name}.pth", *rest) for name, rest in SEVENTEEN.items()]
ROW_18 = [Case(18, f"{name}.pth", *rest) for name, rest in EIGHTEEN.items()]
ROW_40 = [
    Case(40, "twice.pth", archive(pickled(("w", tensor()), ("w", tensor()))), FormatError, "'w' is there twice"),
    Case(40, "twice_apart.pth",
         raw(b"}" + (text(STATE) + tensor() + b"s") * 2 + b"."), FormatError, "time_state' is there twice"),
    Case(40, "twice_in_metadata.pth",
         raw(b.EMPTY + plain({"_metadata": b"}" + (text("a") + b"Ns") * 2}) + b"b."), FormatError, "'a' is there"),
    Case(40, "twice_by_memo.pth",
         raw(b"}(" + text("w") + b"q\0" + tensor() + b"h\0" + tensor() + b"u."), FormatError, "'w' is there twice"),
]  # fmt: skip
ROW_41 = [
    Case(41, "poisoned.pth", raw(b.EMPTY + plain({"_metadata": b.EMPTY, "items": 1}) + b"b."), UnsafeFileError, "attr"),
    Case(41, "poisoned_slots.pth", raw(b.EMPTY + plain((None, {"keys": 1})) + b"b."), UnsafeFileError, "attributes"),
    Case(41, "poisoned_metadata.pth", raw(b.EMPTY + plain({"_metadata": "x"}) + b"b."), UnsafeFileError, "attributes"),
    Case(41, "defaultdict.pth", asks("collections.defaultdict", (name_of("os.system"),)), UnsafeFileError, "default"),
    Case(41, "counter.pth", asks("collections.Counter"), UnsafeFileError, "Counter"),
    Case(41, "chainmap.pth", asks("collections.ChainMap"), UnsafeFileError, "ChainMap"),
]

CASES = [*ROW_1, *ROW_2, *ROW_3, *ROW_5, *ROW_12, *ROW_13, *ROW_14, *ROW_17, *ROW_18, *ROW_40, *ROW_41]

"""Names allowed in the pickle of a .pth: torch's storages and element types, and what trainers save."""

#: torch's storage classes -> element type
STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip

#: what trainers save beside tensors (rng states, losses, shapes, devices, options); never created or called
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
UNREAD = frozenset(
    {
        *((module, name) for module in _NUMPY for name in ("scalar", "_reconstruct")),
        *(("numpy", name) for name in ("dtype", "ndarray", "bool_", "float32", "float64", "int32", "int64")),
        *(("torch", name) for name in ("Size", "device", "Generator")),
        ("torch.serialization", "_get_layout"),
        ("collections", "Counter"),
        ("_codecs", "encode"),
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        *(("pathlib", name) for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
        *(
            (module, name)
            for module in ("builtins", "__builtin__")
            for name in (
                "set",
                "frozenset",
                "complex",
                "bytearray",
                "slice",
                "int",
                "float",
                "list",
                "dict",
                "bool",
                "str",
            )
        ),
    }
)
#: torch's element types
TYPES = frozenset(
    "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool float8_e4m3fn float8_e5m2 complex64".split()
)

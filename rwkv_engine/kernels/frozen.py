"""`Frozen`: arguments of a compiled program, converted once instead of at every call.

Numba unpacks a NamedTuple of arrays at every call and releases it afterwards: a microsecond per array, twice,
if its own code has left the caches, as after every token. A Frozen stores the values in memory as compiled
code needs them, and passes only their address.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from rwkv_engine.kernels._jit import program


class FrozenType(types.Type):
    """The type of a Frozen that holds values of type `inner`."""

    def __init__(self, inner: types.Type) -> None:
        self.inner = inner
        super().__init__(f"Frozen({inner})")

    @property
    def key(self) -> Any:
        """Identifies the type; the name would be the same for NamedTuples with the same name and fields."""
        return self.inner


class Frozen:
    """A tuple of arrays, numbers and NamedTuples of them, which it keeps alive.

    Compiled code gets it back from `thaw`. Values cannot be replaced; the content of arrays may change.
    """

    __slots__ = ("_block", "_numba_type_", "address", "values")

    def __init__(self, *values: Any) -> None:
        self.values = values
        self._numba_type_ = FrozenType(numba.typeof(values))
        self._block = np.zeros(_freeze(0, values) // 8 + 1, np.int64)
        self.address = self._block.ctypes.data
        _freeze(self.address, values)


@register_model(FrozenType)
class _FrozenModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: FrozenType) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@unbox(FrozenType)
def _unbox_frozen(kind: FrozenType, frozen: Any, c: Any) -> NativeValue:
    address = c.pyapi.object_getattr_string(frozen, "address")
    value = c.pyapi.long_as_longlong(address)
    c.pyapi.decref(address)
    return NativeValue(value, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


def _disowned(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> ir.Value:
    """`value` with arrays that own nothing, so compiled code counts no references to them."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value=value)
        array.meminfo, array.parent = (
            cgutils.get_null_value(owner.type) for owner in (array.meminfo, array.parent)
        )
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for place, inner in enumerate(kind.types):
            value = builder.insert_value(
                value, _disowned(context, builder, inner, builder.extract_value(value, place)), place
            )
    return value


@intrinsic
def _write(typingctx: Any, address: Any, values: Any) -> Any:
    """Write `values` to `address` (unless it is 0); returns their size in bytes."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        model = context.data_model_manager[values]
        with builder.if_then(cgutils.is_not_null(builder, arguments[0])):
            place = builder.inttoptr(arguments[0], model.get_data_type().as_pointer())
            builder.store(model.as_data(builder, _disowned(context, builder, values, arguments[1])), place)
        return ir.IntType(64)(context.get_abi_sizeof(model.get_data_type()))

    return types.int64(types.int64, values), codegen


@program
def _freeze(address: int, values: Any) -> int:
    return _write(address, values)


@intrinsic
def thaw(typingctx: Any, frozen: Any) -> Any:
    """The values of a Frozen."""
    if not isinstance(frozen, FrozenType):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        model = context.data_model_manager[frozen.inner]
        place = builder.inttoptr(arguments[0], model.get_data_type().as_pointer())
        return model.load_from_data_pointer(builder, place)

    return frozen.inner(frozen), codegen

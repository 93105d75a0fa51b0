"""int4: 4-bit codes of a table, 4.5 bits a weight; see `codes`."""

from rwkv_engine.formats.codes import Kernels, code_format
from rwkv_engine.kernels.code_search import compensate_int4, quantize_int4
from rwkv_engine.kernels.matmul_codes import Int4Rows, room_int4
from rwkv_engine.numbers.code_layout import INT4

KERNELS = Kernels(quantize_int4, compensate_int4, Int4Rows, room_int4)
FORMAT = code_format("int4", INT4, KERNELS, same="IQ4_NL")

"""int4: 4-bit codes of a table, 4.5 bits a weight; see `codes`."""

from rwkv_engine.formats.codes import code_format
from rwkv_engine.kernels.code_search import quantize_int4
from rwkv_engine.kernels.matmul_codes import Int4Rows, room_int4
from rwkv_engine.numbers.code_layout import INT4

FORMAT = code_format("int4", INT4, quantize_int4, Int4Rows, room_int4, same="IQ4_NL")

"""int5: 5-bit codes of a table, 5.5 bits a weight; see `codes`."""

from rwkv_engine.formats.codes import code_format
from rwkv_engine.kernels.code_search import quantize_int5
from rwkv_engine.kernels.matmul_codes import Int5Rows, room_int5
from rwkv_engine.numbers.code_layout import INT5

FORMAT = code_format("int5", INT5, quantize_int5, Int5Rows, room_int5)

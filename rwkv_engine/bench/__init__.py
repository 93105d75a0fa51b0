"""Measuring a model on this machine: bandwidth, speed, start, memory, sparsity; the report, its comparison
and its plot.
"""

from rwkv_engine.bench.compare import compared
from rwkv_engine.bench.measure import measure
from rwkv_engine.bench.report import Report, table

__all__ = ["Report", "compared", "measure", "table"]

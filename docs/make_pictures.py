"""Draw the example of a shared run: docs/bench.png, docs/bench-dark.png, and docs/bench.md with its Markdown row;
and docs/precision.png.

    python docs/make_pictures.py

The runs are files, one of benchmarks/results and docs/precision.json, so that the pictures change only with the
program that draws them.
"""

import json
from pathlib import Path

from rwkv_engine.bench.plot import plot
from rwkv_engine.bench.report import Report, markdown
from rwkv_engine.evaluation import plot as precision
from rwkv_engine.evaluation.report import Row

HERE = Path(__file__).resolve().parent
RUN = HERE.parent / "benchmarks" / "results" / "epyc-milan-avx2-0.1b-int8.json"
PAGE = """\
# A run to share

`rwkv bench MODEL --markdown` prints a table to paste into an issue. It names neither file nor computer:

{table}

`rwkv bench MODEL --plot bench.png` draws a picture of the run, and `--dark` draws it on a dark ground. Each panel has its own bound:
decoding reads all weights for each token, a prompt reads them once for 64 tokens.

![Bars and lines of a run: decode, prompts, latency](bench.png)

![The same picture on a dark ground](bench-dark.png)

`--share FILE.json` writes the run without names; `python benchmarks/results.py FILES` puts such files beside one another. Several
formats and numbers of threads are measured in one run: `rwkv bench MODEL --weights int8,int4 --threads 1,2`.

This page and its pictures are made by `python docs/make_pictures.py`.
"""


def page() -> str:
    """docs/bench.md."""
    return PAGE.format(table=markdown([Report.of_file(RUN)]))


if __name__ == "__main__":
    (HERE / "bench.md").write_text(page(), "utf-8", newline="\n")
    for name, dark in (("bench.png", False), ("bench-dark.png", True)):
        plot([Report.of_file(RUN)], HERE / name, dark)
    rows = [Row(**row) for row in json.loads((HERE / "precision.json").read_text("utf-8"))]
    precision.plot(rows, HERE / "precision.png")

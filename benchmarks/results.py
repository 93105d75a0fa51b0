"""All shared runs of `rwkv bench` beside one another, as a Markdown table and a picture.

    python benchmarks/results.py [FILES] [--plot results.png]

Reads what `rwkv bench --json` or --share wrote; without files, those in benchmarks/results. The bound is each machine's own: a bar ends where its
bandwidth would be used up.
"""

import argparse
import io
from pathlib import Path

from rwkv_engine.bench.report import Report, markdown_table
from rwkv_engine.system.files import write_whole


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", metavar="FILES")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    files = options.files or sorted((Path(__file__).parent / "results").glob("*.json"))
    reports = [report for path in files for report in Report.all_of_file(path)]
    print(markdown_table(reports))
    if options.plot:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 1 + 0.5 * len(reports)), layout="constrained")
        axes = figure.subplots()
        names = [
            f"{r.model['name']} {r.model['format']}\n{r.machine['processor']}, {r.machine['threads']} threads"
            for r in reports
        ]
        axes.barh(names, [r.bound for r in reports], color="lightgrey", label="bound of the bandwidth")
        axes.barh(names, [r.decode for r in reports], height=0.5, label="decode")
        axes.set_xlabel("tokens/s")
        axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_whole(options.plot, [picture.getbuffer()])


if __name__ == "__main__":
    main()

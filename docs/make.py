"""Write the pages that are made from the program: docs/cli.md, docs/api.md, the tables of
docs/small-computers.md.

    python docs/make.py             # write them
    python docs/make.py --check     # write nothing; exit code 1 if one is not what it would be

The tests run the check, so a change of an option or a docstring is followed by `python docs/make.py`.
"""

import subprocess
import sys
from pathlib import Path

import make_api
import make_cli

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- made by benchmarks/devices.py -->\n", "<!-- end -->\n"


def devices() -> str:
    """docs/small-computers.md with its tables made anew."""
    script = HERE.parent / "benchmarks" / "devices.py"
    tables = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, check=True).stdout.decode(
        "utf-8"
    )
    before, _, rest = (HERE / "small-computers.md").read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{tables}{END}{rest.partition(END)[2]}"


PAGES = {"api.md": make_api.page, "cli.md": make_cli.page, "small-computers.md": devices}


def main(check: bool) -> int:
    """Write the pages, or tell which differ; the exit code."""
    different = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if not path.exists() or path.read_text("utf-8") != text:
            different.append(name)
            if not check:
                path.write_text(text, "utf-8", newline="\n")
    for name in different:
        print(f"docs/{name} " + ("is out of date; run: python docs/make.py" if check else "written"))
    return int(check and bool(different))


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))

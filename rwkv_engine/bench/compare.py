"""Two reports side by side, and what may not be compared in them."""

from rwkv_engine.bench.report import Report, Row, figure, notes, rows, title

#: what two runs may differ in -> the keys of (machine, model) that tell
DIFFERENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "machine": (("processor", "architecture", "cores"), ()),
    "threads": (("threads",), ()),
    "kernels": (("level",), ()),
    "model": ((), ("family", "layers", "width", "vocabulary")),
    "weights": ((), ("format",)),
}


def compared(r: Report, other: Report) -> str:
    """Both reports side by side, with the ratio of the first to the other and both runs' notes.

    A line is marked with what the runs differ in, if its figure depends on it.
    """
    differ = differences(r, other)
    theirs = {row.what: row for row in rows(other)}
    lines = ["This run:", title(r), *notes(r), "", "The other:", title(other), *notes(other), ""]
    if differ:
        told = "; ".join(f"{what}: {mine} here, {its} there" for what, (mine, its) in differ.items())
        lines += [f"The runs differ in {told}.", "Lines that depend on it are marked with !", ""]
    lines.append(f"{'':<32}{'this':>18}{'other':>18}{'ratio':>8}")
    for row in rows(r):
        lines.append(_line(row, theirs.get(row.what), [what for what in differ if what in row.depends]))
    return "\n".join(lines)


def differences(r: Report, other: Report) -> dict[str, tuple[str, str]]:
    """What the runs differ in, of DIFFERENCES -> (of the first, of the other)."""
    found = {}
    for what, (machine, model) in DIFFERENCES.items():
        mine, its = (
            [str(one.machine.get(key)) for key in machine] + [str(one.model.get(key)) for key in model]
            for one in (r, other)
        )
        if mine != its:
            found[what] = (" ".join(mine), " ".join(its))
    return found


def _line(row: Row, other: Row | None, differ: list[str]) -> str:
    beside = other.value if other is not None else None
    ratio = f"{row.value / beside:.2f}" if row.value is not None and beside else ""
    said = "! " + ", ".join(differ) if differ else _verdict(row, other)
    cells = f"{row.what:<32}{_with_spread(row):>18}{_with_spread(other):>18}{ratio:>8}"
    return f"{cells} {row.unit:<8} {said}".rstrip()


def _with_spread(row: Row | None) -> str:
    if row is None:
        return "unknown"
    return figure(row.value) + (f" ± {figure(row.spread)}" if row.spread is not None else "")


def _verdict(row: Row, other: Row | None) -> str:
    """Whether the figure is better, worse, or within the spread of the trials; nothing where it is not known."""
    if other is None or row.value is None or other.value is None or not row.better:
        return ""
    change = (row.value - other.value) * row.better
    if row.spread is not None and other.spread is not None and abs(change) <= row.spread + other.spread:
        return "within the spread"
    return "better" if change > 0 else "worse" if change < 0 else "the same"

"""Tables, as every verb prints them."""

from collections.abc import Sequence

from rwkv_engine_cli.output import columns, echo, visible


def print_rows(rows: Sequence[tuple[str, ...]], *, heads: bool = False) -> None:
    """Print rows of equal length as columns, one line each; `heads`: the first row has the titles.

    Cells are wrapped if the terminal is too narrow.
    """
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    if not sys.stdout.isatty():  # one line for each row, however long: for other programs
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        for row in rows:
            echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, show_header=heads, pad_edge=False, padding=(0, 2, 0, 0))
    for name in rows[0] if heads else [""] * len(rows[0]):
        table.add_column(visible(name), overflow="fold")
    for row in rows[1:] if heads else rows:
        table.add_row(*(Text(visible(text)) for text in row))
    # rich takes every terminal without escape sequences for one of 80 columns, unless it is told both sizes
    Console(highlight=False, width=columns(sys.stdout) or None, height=25).print(table)

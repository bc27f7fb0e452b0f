"""The matrix for people and for machines: terminal, HTML, Markdown, JSON. All of it from the results alone."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from chaos.checks.disclosure import WORDS
from chaos.model import Rung

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.faults.wire.rows import Row
    from chaos.matrix.trials import Cell, Result

SCHEMA = 1
LETTERS = {Rung.NOTHING: "0", Rung.SSL_REQUEST: "0", Rung.CLIENT_HELLO: "0", Rung.STARTUP: "U", Rung.SCRAM_PROOF: "A"} | {
    Rung.PASSWORD: "P",
    Rung.QUERY: "Q",
}
SIGNS = {"holds": "·", "refuses": "R", "hangs": "H", "n/a": "-", "unproven": "?"}
LEGEND = (
    "· holds: gave up in time, or went on where it should",
    "U A P Q gave away: user and database name, SCRAM proof, password, query; lower case: some of it in plaintext",
    "H no end in time   R refuses what is right   - not applicable   ? unproven: its control failed",
)
STYLES = {"holds": "green", "gives": "bold red", "refuses": "red", "hangs": "red", "n/a": "dim", "unproven": "yellow"}


def sign(cell: Cell) -> str:
    """One character."""
    if cell.outcome != "gives":
        return SIGNS[cell.outcome]
    if cell.row.startswith("P16"):
        return "k"  # the session's secret key, in plaintext
    letter = LETTERS[max(cell.reached, Rung.STARTUP)]
    return letter.lower() if cell.plaintext else letter


def words(cell: Cell) -> str:
    """The same in words."""
    if cell.outcome == "gives" and not cell.row.startswith("P16"):
        furthest, clear = max(cell.reached, Rung.STARTUP), max(cell.clear, Rung.STARTUP)
        if cell.plaintext and clear == furthest:
            return f"gave away {WORDS[furthest]} in plaintext"
        also = f", and {WORDS[clear]} in plaintext" if cell.plaintext else ""
        return f"gave away {WORDS[furthest]} inside TLS{also}"
    return f"{cell.outcome}: {cell.reason}" if cell.reason else cell.outcome


def _columns(results: Sequence[Result]) -> list[tuple[Result, str]]:
    return [(result, mode) for result in results if not result.missing for mode in result.driver.modes]


def _lines(rows: Mapping[str, Row], results: Sequence[Result]) -> Iterator[tuple[str, str, Row, list[Cell]]]:
    """(id, title, row, cells in the order of the columns)."""
    cells = {(cell.driver, cell.mode, cell.row): cell for result in results for cell in result.cells}
    names = list(dict.fromkeys(cell.row for result in results for cell in result.cells))
    for name in names:
        row = rows[name.removesuffix(".safe")]
        title = row.title + (", by the cancel that keeps to TLS" if name.endswith(".safe") else "")
        yield name, title, row, [cells[result.driver.name, mode, name] for result, mode in _columns(results)]


def terminal(rows: Mapping[str, Row], results: Sequence[Result]) -> Iterator[Table | Text]:
    """A table with one character a cell, what the characters mean, and who is missing."""
    table = Table(box=None, padding=(0, 1), show_edge=False)
    table.add_column("row", no_wrap=True)
    for number, result in enumerate((one for one in results if not one.missing), 1):
        modes = "".join(mode[0] for mode in result.driver.modes)
        table.add_column(f"{number}\n{modes}", justify="center", no_wrap=True)
    table.add_column("what the server does, and what has to come of it", overflow="ellipsis", no_wrap=True)
    for name, title, row, cells in _lines(rows, results):
        groups: dict[str, Text] = {}
        for cell in cells:
            groups.setdefault(cell.driver, Text()).append(sign(cell), STYLES[cell.outcome])
        table.add_row(name, *groups.values(), f"{title} [dim]({row.must})[/dim]")
    yield table
    for number, result in enumerate((one for one in results if not one.missing), 1):
        yield Text(f"{number}  {result.driver.name} {result.version}: {tally(result)}")
    for result in results:
        if result.missing:
            yield Text(f"-  {result.driver.name}: {result.missing}", "yellow")
    for line in LEGEND:
        yield Text(line, "dim")


def tally(result: Result) -> str:
    """Per setting, how many rows gave something away or hung, of those that apply."""
    told = []
    for mode in result.driver.modes:
        counts = Counter(cell.outcome for cell in result.cells if cell.mode == mode)
        asked = sum(counts.values()) - counts["n/a"]
        extra = "".join(f", {counts[what]} {what}" for what in ("hangs", "refuses", "unproven") if counts[what])
        told.append(f"{mode} {counts['gives']} of {asked} give something away{extra}")
    return "; ".join(told)


def as_json(rows: Mapping[str, Row], results: Sequence[Result], facts: Mapping[str, str]) -> dict[str, object]:
    """Plain data: schema_version, the environment's facts, drivers, rows and cells."""
    names = {cell.row.removesuffix(".safe") for result in results for cell in result.cells}
    return {
        "schema_version": SCHEMA,
        **facts,
        "drivers": [
            {
                "name": one.driver.name,
                "version": one.version,
                "missing": one.missing,
                "modes": {mode: dict(options) for mode, options in one.driver.modes.items()},
            }
            for one in results
        ],
        "rows": [
            {
                "id": name,
                "title": rows[name].title,
                "must": rows[name].must,
                "why": rows[name].why,
                "severity": rows[name].severity,
            }
            for name in rows
            if name in names
        ],
        "cells": [
            {**asdict(cell), "reached": cell.reached.name, "clear": cell.clear.name, "shown": words(cell)}
            for result in results
            for cell in result.cells
        ],
    }


def markdown(rows: Mapping[str, Row], results: Sequence[Result]) -> str:
    """The table of docs/driver-matrix.md."""
    columns = [result for result in results if not result.missing]
    lines = ["| row | " + " | ".join(result.driver.name for result in columns) + " | must |", "|---" * (len(columns) + 2) + "|"]
    for name, title, row, cells in _lines(rows, results):
        groups: dict[str, list[str]] = {}
        for cell in cells:
            groups.setdefault(cell.driver, []).append(sign(cell))
        told = " | ".join(f"`{' '.join(signs)}`" for signs in groups.values())
        lines.append(f"| {name}: {title} | {told} | {row.must} |")
    lines += ["", *(f"- {one.driver.name} {one.version}: {tally(one)}" for one in columns)]
    lines += [f"- {one.driver.name}: {one.missing}" for one in results if one.missing]
    return "\n".join(lines) + "\n"


_STYLE = (
    ":root{--bg:#fff;--ink:#1d2126;--line:#d8d8d8;--holds:#e6f4e6;--gives:#f7c8c8;--part:#f9dfc0;--open:#fbf3c0;--na:#59626c}"
    "@media(prefers-color-scheme:dark){:root{--bg:#131619;--ink:#e7e9eb;--line:#3a4046;--holds:#16321f;--gives:#5c2320;--part:#4a3413;"
    "--open:#3d3716;--na:#a2abb4}}"
    "body{font:14px system-ui,sans-serif;margin:0;background:var(--bg);color:var(--ink)}main{padding:1em 2em}h1{font-size:24px}"
    ".across{overflow-x:auto}table{border-collapse:collapse}td,th{border:1px solid var(--line);padding:2px 6px;text-align:center;"
    "font-weight:400}th.what,td.what{text-align:left}td.what{min-width:22em}.holds{background:var(--holds)}.gives{background:var(--gives);"
    "font-weight:bold}.refuses,.hangs{background:var(--part)}.unproven{background:var(--open)}.na{color:var(--na)}"
    "@media(max-width:820px){main{padding:1em}}"
)


def page(rows: Mapping[str, Row], results: Sequence[Result], facts: Mapping[str, str]) -> str:
    """One page that needs nothing else; a cell says in words what came of it when it is pointed at."""
    esc = html.escape
    columns = _columns(results)
    present = [result for result in results if not result.missing]
    heads = "".join(
        f'<th scope="colgroup" colspan="{len(one.driver.modes)}">{esc(one.driver.name)}<br>{esc(one.version)}</th>'
        for one in present
    )
    modes = "".join(f'<th scope="col">{esc(mode)}</th>' for _, mode in columns)
    body = "".join(
        f'<tr><th scope="row" class="what">{esc(name)}</th>'
        + "".join(
            f'<td class="{cell.outcome.replace("/", "")}" title="{esc(words(cell))} ({esc(cell.answer)})">{sign(cell)}</td>'
            for cell in cells
        )
        + f'<td class="what" title="{esc(row.why)}">{esc(title)} ({esc(row.must)})</td></tr>\n'
        for name, title, row, cells in _lines(rows, results)
    )
    missing = "".join(f"<p>{esc(one.driver.name)}: {esc(one.missing)}</p>" for one in results if one.missing)
    legend = "".join(f"<p>{esc(line)}</p>" for line in LEGEND)
    told = esc(", ".join(f"{key} {value}" for key, value in facts.items()))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>driver matrix</title><style>{_STYLE}</style><main>'
        f"<h1>What database drivers give away</h1><p>{told}</p>{legend}{missing}"
        '<div class="across" tabindex="0" role="region" aria-label="The matrix">'
        f'<table><tr><th scope="col" rowspan="2">row</th>{heads}<th scope="col" rowspan="2">what the server does</th></tr>'
        f"<tr>{modes}</tr>\n{body}</table></div></main></html>\n"
    )

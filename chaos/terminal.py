"""What people see while a run goes on, and its last words.

On a terminal: one line that says what is being broken right now, with the time left, above which everything else scrolls.
Anywhere else (a pipe, CI, TERM=dumb): one line a phase, and a line of progress every ten seconds at most. Nothing is cut or
wrapped when it is piped. Colour only where rich sees a terminal that has it, and NO_COLOR is not set.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from chaos import __version__
from chaos.evidence import words
from chaos.evidence.redact import redact
from chaos.model import Finding, GateResult, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from chaos.evidence.record import Run

WIDEST = 120  # columns: a wider line is read worse, not better
QUIET = 10.0  # s between two lines of progress where no line can be rewritten
SHOWN = 12  # failures told in full; the report has all

STYLES = {
    Outcome.FAIL: "bold red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.PASS: "green",
    Outcome.WAIVED: "magenta",
    Outcome.NOT_APPLICABLE: "dim",
}
VERDICTS = {
    Verdict.GO: "bold green",
    Verdict.CLEAR: "bold green",
    Verdict.NO_GO: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}
# Where the stream's encoding has no such characters (LANG=C), plain ones.
_ASCII = {"\N{MIDDLE DOT}": "-", "\N{HORIZONTAL ELLIPSIS}": "...", "\N{RIGHTWARDS ARROW}": "->"}


class Screen:
    """One run on one stream. `live`: whether a line may be rewritten (None: when the stream is a terminal that can).

    `secrets` are values that must never be shown. Every method may be called from any thread.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        live: bool | None = None,
        secrets: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stdout
        self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        able = self._console.is_terminal and not self._console.is_dumb_terminal
        self._terminal = able if live is None else live
        self._secrets = tuple(secrets)
        self._clock = clock
        self._lock = threading.RLock()
        self._line = _LiveLine(self._paint) if self._terminal else None
        self._status: tuple[str, int, int, float | None, float] | None = None
        self._name, self._mark = "breaking", ""
        self._drawn = False
        self._told = float("-inf")
        self._told_done = -1

    # -- while it runs ----------------------------------------------------------------------------------------------------------

    def header(self, *, target: str, profile: str, seed: int, workers: int, version: str = __version__) -> None:
        """The first line: all that is needed to run the same again."""
        parts = [f"target {target}", f"profile {profile}", f"seed {seed}", words.plural(workers, "worker")]
        self._print(Text.assemble((f"chaos-gate {version}", "bold"), *((" \N{MIDDLE DOT} " + part) for part in parts)))

    def phase(self, name: str, text: str, seconds: float | None = None) -> None:
        """One line of what has been done: 'environment   PostgreSQL 17.10 ...   0.4 s'."""
        line = Text.assemble((f"{name:<13} ", "bold"), self._clean(text))
        if seconds is not None:
            took = f"{seconds:.1f} s" if 0.0995 <= seconds < 99.5 else words.duration(seconds)
            line.append(" " * max(3, self.width - line.cell_len - len(took)) + took, style="dim")
        self._print(line)

    def breaking(self, text: str, done: int, total: int, left_seconds: float | None = None) -> None:
        """What is being broken right now, and how far the run is. `left_seconds` None: not known yet."""
        with self._lock:
            self._status = (self._clean(text), done, total, left_seconds, self._clock())
            self._name = "breaking"
            if self._line is not None:
                self._line.show()
            elif done != self._told_done and self._clock() - self._told >= QUIET:
                self._told, self._told_done = self._clock(), done
                self._print(self._progress())

    def going(self, name: str, text: str, left_seconds: float | None = None, *, mark: str = "") -> None:
        """How a long run stands. Where no line can be rewritten it is said once for each `mark`: an hour, a phase."""
        with self._lock:
            self._status = (self._clean(text), -1, -1, left_seconds, self._clock())
            self._name = name
            if self._line is not None:
                self._line.show()
            elif mark != self._mark:
                self._mark = mark
                self._print(self._progress())

    def failure(self, finding: Finding) -> None:
        """A check that failed, as it happens: two lines. The last words tell it in full."""
        self._print(
            Text.assemble(("FAIL", STYLES[Outcome.FAIL]), f"  {finding.check}", (f"  {finding.gate}", "dim")),
            *self._indented(finding.detail, 6),
        )

    def error(self, text: str) -> None:
        """An environment error's own words (`ChaosError.render()`)."""
        first, *rest = self._clean(text).splitlines() or [""]
        self._print(Text(first, style="bold red"), *(Text(line) for line in rest))

    # -- the last words ---------------------------------------------------------------------------------------------------------

    def summary(self, run: Run, directory: Path) -> None:
        """Verdict, gates worst first, failures in a few lines each, and where the evidence is."""
        self.close()
        verdict = Text.assemble((run.verdict.value, VERDICTS[run.verdict]), "  ", self._clean(words.sentence(run)))
        self._print(Text(""), *self._wrapped(verdict, 2))
        for note in run.notes:
            self._print(*self._wrapped(Text(f"  {self._clean(note)}"), 2))
        groups = _aside(run)
        aside = {gate.id for _, those in groups for gate in those}
        for line in self._table([gate for gate in words.worst_first(run.gates) if gate.id not in aside]):
            self._print(line)
        for what, those in groups:
            names = ", ".join(gate.id for gate in those)
            self._print(*self._wrapped(Text.assemble("  ", (f"{what}: {names}", "dim")), 4))
        if told := words.reported(run):
            self._print(*self._wrapped(Text.assemble("  ", (f"reported, for [policy] to decide: {told}", "dim")), 4))
        self._failures(run.failures)
        self._print(Text(""))
        for name, text in (
            ("recovery", words.recovery(run)),
            ("clean-up", run.cleanup),
        ):  # apart from the verdict, and each other
            if text:
                self._print(*self._wrapped(Text.assemble((f"{name:<10}", "dim"), self._clean(text)), 10))
        self._print(*self._paths(directory))

    def close(self) -> None:
        """Take the live line away. Idempotent; the screen can still print."""
        with self._lock:
            self._status = None
        if self._line is not None:
            self._line.stop(self._erase)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def width(self) -> int:
        """Columns that a line may take; where nobody looks, as many as read well."""
        return min(self._console.width, WIDEST) if self._terminal or self._console.is_terminal else WIDEST

    # -- gates --------------------------------------------------------------------------------------------------------------------

    def _table(self, results: list[GateResult]) -> list[Text]:
        rows = [(gate, self._one_line(words.observed(gate)), self._one_line(words.bounded(gate))) for gate in results]
        if not rows:
            return []
        first = max(len(gate.id) for gate, _, _ in rows) + 4
        start = first + max(len(words.LABELS[gate.outcome]) for gate, _, _ in rows) + 2
        middle = min(max((len(seen) for _, seen, bound in rows if bound), default=0), 48) + 2
        lines: list[Text] = []
        for gate, seen, bound in rows:
            head = Text.assemble(
                f"  {gate.id}".ljust(first), (words.LABELS[gate.outcome].ljust(start - first), STYLES[gate.outcome]), seen
            )
            # aligned where that fits, else right behind, else on a line of its own
            for gap in (max(2, middle - len(seen)), 2):
                if bound and (not self._console.is_terminal or head.cell_len + gap + len(bound) <= self.width):
                    lines.append(head.append(" " * gap + bound, style="dim"))
                    break
            else:
                lines += self._wrapped(head, start)
                lines += self._wrapped(Text(" " * start + bound, style="dim"), start) if bound else []
        return lines

    def _failures(self, failures: tuple[Finding, ...]) -> None:
        for finding in failures[:SHOWN]:
            self._print(Text(""), Text.assemble(("FAIL  ", STYLES[Outcome.FAIL]), (finding.check, "bold"), f"  {finding.gate}"))
            broken = finding.fault or finding.experiment
            if finding.took_effect is False:
                broken += " (it was not seen to take effect)"
            for name, text in (("broken", broken), ("expected", finding.expected), ("seen", finding.detail)):
                if text:
                    self._print(*self._field(name, text))
            for example in finding.examples[:3]:
                self._print(*self._field("", example))
            if finding.rerun:
                self._print(*self._field("again", finding.rerun, style="bold", whole=True))
        if len(failures) > SHOWN:
            self._print(Text(""), Text(f"and {len(failures) - SHOWN} more failures: the report has them all"))

    def _field(self, name: str, text: str, *, style: str = "", whole: bool = False) -> list[Text]:
        line = Text.assemble((f"  {name:<10}", "dim"), (self._one_line(text), style))
        return [line] if whole else self._wrapped(line, 12)  # a command is copied: it stays one line

    def _paths(self, directory: Path) -> list[Text]:
        latest = directory.parent / "latest"
        shown = latest if latest.is_symlink() and latest.resolve() == directory.resolve() else directory
        if shown.is_absolute() and shown.is_relative_to(Path.cwd()):
            shown = shown.relative_to(Path.cwd())
        files = (("report", "report.html"), ("evidence", "evidence.json"), ("scorecard", "scorecard.pdf"))
        present = [(name, shown / file) for name, file in files if (directory / file).exists()]
        return [Text.assemble((f"{name:<10}", "dim"), str(path)) for name, path in present or [("evidence", shown)]]

    # -- lines ------------------------------------------------------------------------------------------------------------------

    def _clean(self, text: str) -> str:
        return redact(text, self._secrets)

    def _one_line(self, text: str) -> str:
        return " ".join(self._clean(text).split())

    def _indented(self, text: str, by: int) -> list[Text]:
        return self._wrapped(Text(" " * by + self._one_line(text)), by)

    def _wrapped(self, line: Text, indent: int) -> list[Text]:
        """On a terminal broken between words, further lines indented; elsewhere as it is."""
        if not self._console.is_terminal or line.cell_len <= self.width:
            return [line]
        lines: list[Text] = []
        room = self.width
        while line.cell_len > room:
            plain = line.plain
            cut = plain.rfind(" ", indent + 1 if lines else len(plain) - len(plain.lstrip()) + 1, room + 1)
            cut = cut if cut > indent else room
            head, tail = line.divide([cut])
            head.rstrip()
            lines.append(head)
            line = Text(" " * indent).append_text(Text.assemble(*_lstripped(tail)))
        return [*lines, line]

    def _print(self, *lines: Text) -> None:
        with self._lock:
            if self._line is not None:
                self._erase()
            for line in lines:
                self._console.print(self._encodable(line), soft_wrap=True)
            if self._line is not None and self._status is not None:
                self._paint()

    def _encodable(self, line: Text) -> Text:
        try:
            line.plain.encode(getattr(self._stream, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            plain = "".join(_ASCII.get(char, char) for char in line.plain).encode(encoding, "replace").decode(encoding)
            return Text(plain)
        return line

    def _progress(self) -> Text:
        assert self._status is not None
        text, done, total, left, since = self._status
        end = Text(f"{done} of {words.plural(total, 'check')}" if total >= 0 else "")
        if left is not None and (done < total or total < 0):
            rest = max(0.0, left - (self._clock() - since))
            told = words.duration(rest) if rest >= 99.5 else f"{rest:.0f} s" if rest >= 1 else "less than 1 s"
            end.append((" \N{MIDDLE DOT} " if total >= 0 else "") + f"{told} left", style="dim")
        what = Text(f"{text} \N{MIDDLE DOT} " if text and end.plain else text)
        room = self._console.width - 15 - end.cell_len
        if self._terminal and what.cell_len > room:  # the numbers stay, what is being broken is cut
            what = Text(text)
            what.truncate(max(0, room - 3), overflow="ellipsis")
            what.append(" \N{MIDDLE DOT} ")
        return Text.assemble((f"{self._name:<13} ", "bold"), what, end)

    # -- the live line ------------------------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        """Draw the line anew; the count-down goes on between calls of `breaking`."""
        with self._lock:
            if self._status is None:
                return
            line = self._encodable(self._progress())
            line.truncate(max(10, self._console.width - 1), overflow="ellipsis")
            self._erase()
            self._console.print(line, end="", soft_wrap=True)
            self._stream.flush()
            self._drawn = True

    def _erase(self) -> None:
        with self._lock:
            if self._drawn:
                self._stream.write("\r\x1b[2K")
                self._stream.flush()
                self._drawn = False


class _LiveLine:
    """Repaints four times a second from a daemon thread. The cursor is never hidden, so a killed run leaves a sane terminal."""

    def __init__(self, paint: Callable[[], None]) -> None:
        self._paint = paint
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self) -> None:
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._repaint, name="chaos-screen", daemon=True)
            self._thread.start()
        self._paint()

    def stop(self, erase: Callable[[], None]) -> None:
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join(timeout=2)
        self._thread = None
        erase()

    def _repaint(self) -> None:
        while not self._ended.wait(0.25):
            self._paint()


def _lstripped(tail: Text) -> tuple[Text, ...]:
    spaces = len(tail.plain) - len(tail.plain.lstrip())
    return (tail.divide([spaces])[1],) if spaces else (tail,)


def _aside(run: Run) -> list[tuple[str, list[GateResult]]]:
    """Gates that need no line each: not applicable, or not looked into and another run's business (by who can settle them)."""
    must = set(words.due(run))
    groups: dict[str, list[GateResult]] = {}
    for gate in run.not_proven:
        if not gate.n and not gate.checks and gate not in must:
            groups.setdefault(f"not looked into ({words.prover(gate.id) or 'another run'} can)", []).append(gate)
    if absent := run.of(Outcome.NOT_APPLICABLE):
        groups["not applicable"] = list(absent)
    return list(groups.items())


def run_json(run: Run) -> str:
    """evidence.json's content, for `--json`; without a line feed at its end."""
    from chaos.evidence.schema import evidence_json  # noqa: PLC0415  (pydantic: 0.1 s, and only here)

    return evidence_json(run).rstrip("\n")

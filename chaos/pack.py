"""The pack that goes before a Go/No-Go review: every part of it from one run, made by the commands that people use, and an index.

A part is a line of `PARTS`: files of the evidence that are copied, or a command that writes into the pack. What cannot be made is
named in the index with its reason, and the pack is not complete then.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.evidence import bundle, schema, words
from chaos.evidence.disk import write_text, written
from chaos.evidence.pages import VERDICT_TONES, page
from chaos.evidence.redact import redact
from chaos.model import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INDEX, SUMS = "index.html", "SHA256SUMS"
MARK = "chaos-gate pack"  # by which a directory is known as one of ours, that may be made anew
LONGEST = 600.0  # s that a command may take: `verify` of three days' evidence takes one minute
INCOMPLETE = 3


@dataclass(frozen=True, slots=True)
class Part:
    """`files` of the evidence directory; or what the checks of a `gate` said; or a `command` of ours.

    In a command stand {evidence}, {pack}, and {config} ('-c FILE', where one was given). `output` is the file of the pack that keeps
    what the checks, or the command, said; `shown` what else the index points to.
    """

    title: str
    what: str
    files: tuple[str, ...] = ()
    gate: str = ""
    command: tuple[str, ...] = ()
    output: str = ""
    shown: tuple[str, ...] = ()


PARTS = (
    Part("Scorecard", "one page for whoever decides", files=("scorecard.pdf", "scorecard.html")),
    Part("Report", "what was broken, what was seen, what was not proven", files=("report.html",)),
    Part("Evidence", "verdict, gates and checks for programs", files=("evidence.json",)),
    Part("JUnit", "the same, for CI systems", files=("junit.xml",)),
    Part("Attestation", "what was signed: every file, by its digest", files=("attestation.json",)),
    Part(
        "Verification",
        "signature, hash chain and every number, checked by code that shares nothing with what judged",
        command=("verify", "{evidence}"),
        output="verification.txt",
    ),
    Part("SOC 2", "which criteria the gates support", command=("soc2", "{evidence}", "-o", "{pack}/soc2"), shown=("soc2",)),
    Part(
        "Dashboards, alerts and SLOs",
        "for Grafana, Prometheus, Alertmanager, Argo Rollouts and OpenSLO",
        command=("export", "all", "{config}", "-o", "{pack}/operations"),
        shown=("operations",),
    ),
    Part("Documents", "what a review asks for: is it there, and fresh", gate="rep.documents", output="documents.txt"),
    Part(
        "For customers",
        "posture, one-pager and FAQ, of what is proven",
        command=("trust", "{evidence}", "-o", "{pack}/trust"),
        shown=("trust",),
    ),
    Part(
        "Summary",
        "pass and fail by gate, anomalies, remediation",
        command=("summary", "{evidence}", "{config}", "-o", "{pack}/summary"),
        shown=("summary",),
    ),
)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a part: the files to look at, and why it is not what it should be ('': it is)."""

    part: Part
    files: tuple[str, ...] = ()
    reason: str = ""

    @property
    def state(self) -> str:
        """'made', 'wanting' (it is there, and says that something is not well), or 'missing'."""
        return "made" if not self.reason else "wanting" if self.files else "missing"


def pack(evidence: Path, output: Path | None, config: Path | None, parts: Sequence[Part] = PARTS) -> tuple[Path, list[Made]]:
    """Makes it anew: (where, what became of each part). Raises UsageError, EvidenceUnwritable."""
    source = (bundle.resolve(evidence) or evidence).resolve()
    read = schema.read(source / "evidence.json")
    place = (output or evidence.absolute().parent / "pack").absolute()
    _mine(place, source)
    with written(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            made = [_listed(_make(part, source, room, config, read), room) for part in parts]
            write_text(room / INDEX, _index(read, source, made))
            write_text(room / SUMS, "".join(_sums(room)))
            room.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)
            room.rename(place)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return place, made


def _mine(place: Path, source: Path) -> None:
    """Only what is empty or one of ours is made anew; and nothing that the evidence is in."""
    index = place / INDEX
    known = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")[:2000]
    if (
        source == place
        or source.is_relative_to(place)
        or (place.exists() and not known and (place.is_file() or any(place.iterdir())))
    ):
        raise UsageError("this place holds something else than a pack", remedy="name another one with -o", where=str(place))


def _make(part: Part, source: Path, room: Path, config: Path | None, read: schema.Evidence) -> Made:
    if part.gate:
        return _said(part, room, read)
    if part.command:
        return _run(part, source, room, config)
    missing = [name for name in part.files if not (source / name).is_file()]
    for name in part.files:
        if name not in missing:
            shutil.copyfile(source / name, room / name)
    there = tuple(name for name in part.files if name not in missing)
    return Made(part, there, f"the run left no {', '.join(missing)}" if missing else "")


def _said(part: Part, room: Path, read: schema.Evidence) -> Made:
    """What the checks of a gate said in this run. A gate that failed, or was not looked into, is no part of a whole pack."""
    gate = next((one for one in read.gates if one.id == part.gate), None)
    checks = [one for one in read.checks if one.gate == part.gate]
    if gate is None or not checks:
        return Made(part, (), f"this run did not look into {part.gate}")
    verdict = words.LABELS[Outcome(gate.verdict)]
    lines = [f"{part.gate}: {verdict}, {gate.reason}", *(f"  {one.outcome:<16}{one.id}: {one.detail}" for one in checks)]
    write_text(room / part.output, "\n".join(lines) + "\n")
    return Made(
        part, (part.output,), "" if gate.verdict in {"pass", "waived"} else f"{part.gate}: {verdict}, {gate.reason}"[:300]
    )


def _run(part: Part, source: Path, room: Path, config: Path | None) -> Made:
    """A command of ours in a process of its own: what it needs is imported there, and what it breaks stays there."""
    given = ("-c", str(config)) if config else ()
    words = [
        word.format(evidence=source, pack=room) for item in part.command for word in (given if item == "{config}" else (item,))
    ]
    command = [sys.executable, "-m", "chaos", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LONGEST, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Made(part, (), f"not finished after {LONGEST:g} s: chaos-gate {part.command[0]}")
    if part.output:
        write_text(room / part.output, "\n".join(_lines(done.stdout + done.stderr, source, room)) + "\n")
    found = tuple(name for name in (*part.shown, part.output) if name and (room / name).exists())
    if done.returncode:
        error, told = (_lines(text, source, room) for text in (done.stderr, done.stdout))
        return Made(
            part, found, " ".join(error[:3] or told[-3:])[:300] or f"chaos-gate {part.command[0]} ended with {done.returncode}"
        )
    return Made(part, found, "" if found else "nothing was written")


def _lines(said: str, source: Path, room: Path) -> list[str]:
    """What a command said, without where on this machine it was."""
    text = redact(said).replace(str(room), "pack").replace(str(source), source.name)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _listed(made: Made, room: Path) -> Made:
    """Directories as the files in them."""
    names: list[str] = []
    for name in made.files:
        place = room / name
        inside = sorted(str(one.relative_to(room)) for one in place.rglob("*") if one.is_file()) if place.is_dir() else [name]
        names += inside
    return replace(made, files=tuple(names))


def _index(read: schema.Evidence, source: Path, made: list[Made]) -> str:
    return page(
        "pack.html.j2",
        mark=MARK,
        run=read,
        tone=VERDICT_TONES[Verdict(read.verdict)],
        source=source.name,
        parts=made,
        missing=[one for one in made if one.reason],
    )


def _sums(room: Path) -> Iterator[str]:
    """As `sha256sum --check` reads them."""
    for name in sorted(str(one.relative_to(room)) for one in room.rglob("*") if one.is_file() and one.name != SUMS):
        yield f"{hashlib.sha256((room / name).read_bytes()).hexdigest()}  {name}\n"

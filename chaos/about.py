"""`chaos-gate gates | faults | explain | init`: what the tool knows about itself, from the same tables that a run uses."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chaos.cases import CASES, Case, known_names, select
from chaos.checks.hosts import rows as host_rows
from chaos.checks.pentest import Row as Attack
from chaos.checks.pentest import rows as attack_rows
from chaos.config import load as load_config
from chaos.faults.wire.rows import BY_ID as WIRE_ROWS
from chaos.gates import Gate, named
from chaos.gates import load as load_gates
from chaos.traffic.pentest import rows as sent_rows

WHEN = {
    "quick": "every run",
    "nightly": "nightly or longer",
    "soak": "a soak",
    "canary": "a roll-out",
    "review": "the review",
}
RULES = {
    "zero": "No observation may break it. Every observation is counted (a census); the bound says what zero of n still allows.",
    "demonstrated": "Every check of it has to pass, and there has to be at least one.",
    "rate": "The share of bad observations, over all checks together, with a one-sided 95 % Clopper-Pearson bound: "
    "FAIL when the lower bound breaks the limit, PASS when the upper bound keeps it, else INCONCLUSIVE.",
    "budget": "As a rate (its limit is what the share of a month's budget is as an error rate over 48 hours); and what a soak really "
    "burned of the budget of 30 days must not be above the share itself.",
    "worst_class": "As a rate, for each class of input by itself; the worst class decides.",
    "duration": "Every repetition within the limit.",
}
HOW = {
    "network": "Traffic runs; Toxiproxy breaks the path; probes of our own on the same path prove it; it heals; success has to hold.",
    "slow": "Traffic runs; Toxiproxy delays each answer of the database by a second; the pool fills up; it heals.",
    "certificate": "PostgreSQL is given another certificate and reloaded; the target's sessions are closed; then the right one again.",
    "tls-off": "PostgreSQL's TLS is switched off and its sessions closed; pg_hba allows hostssl only; then on again.",
    "backoff": "A server of an unknown authority takes the database's place, and nobody asks the target for anything: what it attempts "
    "then is its own doing. Then a few requests. Fixed pauses, attempts that do not become rarer, and storms fail.",
    "stale": "While nobody asks, k of its connections die (an RST, or a black hole on the wire). Then one request at a time.",
    "leak": "All tables are locked and the queries that wait are cancelled, in rounds; after each, PostgreSQL's sessions are counted.",
    "final": "PostgreSQL refuses the target's role or database; it is left alone, then asked one request at a time. Insisting fails.",
    "replicas": "A dozen instances of the target, each on a listener of its own, in an outage of 30 to 60 s; left alone, or asked one "
    "request at a time where that is all that makes them try. Clients of ours without jitter are the control.",
    "commit-cut": "The wire logs in to PostgreSQL in the target's place, with the right certificate, and sees what is said. When the "
    "server has committed a write, the connection is cut before the target hears of it. Then the write is looked up.",
    "recovery": "Outage after outage, each of a length and at a moment that the seed draws; healed, and success has to hold each time "
    "within the time that was promised. How often it did says what share of all outages it comes through, at 95 % confidence.",
    "schedule": "Two to four faults, two at once at most, each struck and healed at its time, as the seed draws them (schedule.json). "
    "One that fails is made smaller for as long as it still fails; the smallest is the finding's command.",
    "locks": "All tables are locked; requests are added until no more sessions of the target come to wait; then released.",
    "slots": "The target's sessions are closed and every slot of the server is taken; then released.",
    "restart": "PostgreSQL is stopped, and started again.",
    "life": "Traffic runs; it is done to the real PostgreSQL (SIGKILL, archive recovery, pg_basebackup and pg_ctl promote, a full file "
    "system, locks, triggers that lead into deadlocks); PostgreSQL's log or a session of our own proves it; it is mended.",
    "cross": "Traffic runs, or rests; Toxiproxy breaks the path in one direction while connections are new, idle, or have queries in "
    "flight (held by locks, and let go into it), for a moment or for longer than the deadlines; the wire counts bytes.",
    "flapping": "Traffic runs; the proxy is disabled and enabled a dozen times, on a seeded schedule; then it stays up.",
    "replica": "Two instances, each on a path of its own; the first one's becomes a black hole; the second must not notice.",
    "bouncer": "The target's address leads to PgBouncer in transaction mode; PostgreSQL behind it crashes, or an impostor is there.",
    "starting": "A second instance is started while its database recovers or is slow; then it is well. It has to serve.",
    "start": "A second instance of the target is started where it has never met anything but the impostor. The wire records how far "
    "each of its connections goes: it has to give up before its StartupMessage, in every one.",
    "reconnect": "The target's connections are cut; when it comes back it meets the impostor. The wire records how far it goes.",
    "stall": "Traffic runs; every connection of the target's is accepted and kept waiting at one place; then the right server again.",
    "cancel": "All tables are locked, so that queries take too long; whatever cancels them is seen on the wire.",
    "injection": "A connection of our own, straight to PostgreSQL, with a StartupMessage behind its SSLRequest.",
    "server": "A plaintext connection of our own has to be refused and a verified one accepted; pg_stat_ssl lists the target's.",
    "steady": "Open-loop load on planned arrival times, nothing broken; latency counts from the plan.",
    "hosts": "Every row of the host catalogue and some thousand generated hosts, as raw bytes over fresh connections.",
    "pentest": "Requests that are refused are sent in other forms, good ones with something in them, and messages with two ends with a "
    "request hidden in them, as raw bytes, to the origin and through an edge (docs/pentest.md). Only what is proven counts.",
    "edge": "An edge with TLS (our Caddy, or [target.edge]) stands in front of the running target, a relay of ours between the two: "
    "the catalogue over HTTP/1.1 and HTTP/2, each answer attributed by what the relay saw. Then cache poisoning, without the edge too.",
    "rollback": "The target with a wrong CA file is put behind the edge as a bad release; `chaos-gate rollback` has to end it.",
    "corpus-sample": "A seeded sample of the corpus, each request twice while the wire counts what the database moves; then once more "
    "with connections to the database refused. What flipped is asked again under the same fault, and made smaller.",
    "corpus-steady": "[[target.invalid]], requests made from [target.openapi] and recorded 4xx (--shadow), each twice, alone, "
    "while the wire counts what the database moves. What its own description forbids gets no 5xx.",
    "corpus-fault": "All requests that were refused in the steady state, under one fault: first those that need no database, then the "
    "others. What flipped is asked again under the same fault, and made smaller.",
    "corpus-candidate": "The corpus on [target.candidate], beside the baseline; what differs is asked again on both.",
    "rotation": "the commands of docs/certificate-rotation-sop.md, with two instances of the target under load",
    "contract": "The candidate is started beside the baseline, on one database; both are asked the same, several times and in turns. "
    "Their descriptions are compared by oasdiff, their answers by status, media type, headers and the shape of their JSON.",
    "restore": "A base backup is taken and the write-ahead log archived under traffic; tables are destroyed; the database is put back "
    "to the moment before (docs/rollback.md). Every acknowledged write up to that moment has to be there.",
    "safeguards": "Instances of the target are started with each flag on and off, behind a slow path, and before an impostor: what "
    "each opens, what stays shut, how long first requests take, and what the health check says (docs/rollout.md).",
    "delta": "Baseline and candidate stand behind our edge with equal weights; an open loop of reads is drawn to either.",
    "documents": "The files that [documents] names are read: owner, date of review, headings, and what is left to fill in.",
    "shadow": "A seeded 15 % of the reads in an access log (--shadow FILE), scrubbed, are sent again at their own pace, to the "
    "target and to [target.candidate] in turns; their answers are compared, and what differs is asked again (docs/shadow.md).",
    "logs": "Requests with ids of their own, refused hosts, and private values in headers, queries and bodies; then the log is read.",
    "logs-fault": "The same while PostgreSQL shows a certificate of nobody's: errors are logged more freely than answers.",
    "metrics": "Good requests, wrong ones, refused hosts and a crawler between two scrapes: each panel's metric has to move with them.",
    "metrics-tls": "PostgreSQL shows a certificate of nobody's between two scrapes, and one in between has to be answered.",
    "metrics-pool": "All tables are locked; the gauge of the pool has to show it.",
    "expiry": "the exported alerting rules in promtool and in a Prometheus server, on what the certificate exporter says",
}


def show_gates(given: str | None, *, as_json: bool) -> None:
    """The gates with their thresholds, the caller's own where a chaos.toml is named."""
    rows = load_gates(load_config(Path(given)).gates if given else None)
    if as_json:
        sys.stdout.write(json.dumps([asdict(gate) for gate in rows.values()], indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("gate", "what", "threshold", "settled by", "needs"):
        table.add_column(name, overflow="fold")
    for gate in rows.values():
        table.add_row(gate.id, gate.title, gate.threshold, WHEN[gate.proof], gate.needs.removeprefix("target."))
    _print(table)


def show_faults(*, as_json: bool) -> None:
    """Every experiment: what is broken, for which gate."""
    if as_json:
        sys.stdout.write(json.dumps([{**asdict(case), "gate": case.gate} for case in CASES], indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "what is broken", "gate"):
        table.add_column(name, overflow="fold")
    for case in CASES:
        table.add_row(case.id, case.title, case.gate)
    _print(table)


def explain(name: str) -> None:
    """A gate, a check, a catalogue row or a prefix, in a few lines."""
    rows = load_gates()
    if name in rows:
        _explain_gate(rows[name])
        return
    row = next((row for row in host_rows() if row.id == name), None)
    if row is not None:
        sys.stdout.write(
            f"{row.id}  {row.title}\n\n  must be   {_must(row.must)}\n  why       {row.why}\n"
            "  run it    chaos-gate run --only hosts\n"
        )
        return
    if attack := next((one for one in attack_rows() if one.id == name), None):
        sys.stdout.write(
            f"{attack.id}  {attack.title}\n\n  severity  {_severity(attack)}\n  sent      {_sent(attack.id)}\n"
            f"  why       {attack.why}\n"
            f"  run it    chaos-gate run --only {attack.id}\n"
        )
        return
    found = select((name,))
    if not found:
        named(name, known_names() | set(rows) | {one.id for one in host_rows()} | {one.id for one in attack_rows()})
    for case in found:
        _explain_case(case)


def attack_table() -> str:
    """The rows of the pen-test delta as a table in Markdown: docs/pentest.md holds it."""
    lines = ["| id | what must not get through | severity | what is sent | source |", "|---|---|---|---|---|"]
    for row in attack_rows():
        cells = (f"{row.id}{' (quick)' if row.quick else ''}", row.title, _severity(row), _sent(row.id), row.why)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _severity(row: Attack) -> str:
    return row.severity if row.origin == row.severity else f"{row.severity} through an edge, at the origin {row.origin or 'none'}"


def _sent(name: str) -> str:
    """What a row sends, in one cell: the first few targets, methods and lines."""
    row = next(row for row in sent_rows() if row.id == name)
    if row.kind in {"tls", "look"}:
        return "a hello of ours" if row.kind == "tls" else "nothing of its own"
    if row.kind == "pair":
        return "three requests in one segment"
    parts = [
        ", ".join(row.methods),
        ", ".join(row.targets) if row.kind in {"bypass", "probe"} else f"body {row.body}" if row.body else "",
    ]
    parts += ["; ".join(" + ".join(lines) for lines in row.lines if lines), row.version if row.version != "HTTP/1.1" else ""]
    text = ": ".join(part for part in parts if part).replace("\r", "\\r").replace("\x00", "\\x00").replace("\x0b", "\\x0b")
    return f"`{text if len(text) <= 160 else text[:157] + '...'}`"


def _must(must: str) -> str:
    """What a row of the host catalogue must come to, in words."""
    return {"": "not run", "policy": "whatever [policy] says; by default it is only reported"}.get(must, must)


def _explain_gate(gate: Gate) -> None:
    cases = [case.id for case in CASES if gate.id in case.gates]
    sys.stdout.write(
        f"{gate.id}  {gate.title}\n\n"
        f"  threshold  {gate.threshold}\n"
        f"  judged     {RULES[gate.rule]}\n"
        f"  settled by {WHEN[gate.proof]}\n"
        + (f"  needs      [{gate.needs}] in chaos.toml\n" if gate.needs else "")
        + f"  checks     {', '.join(cases) or 'none in this version: the gate stays not proven'}\n"
        f"  run it     chaos-gate run --only {gate.id}\n"
    )


def _explain_case(case: Case) -> None:
    row = WIRE_ROWS.get(case.what)
    must = f"{row.must} ({row.severity})" if row and row.severity else row.must if row else ""
    sys.stdout.write(
        f"{case.id}  {case.title}\n\n  how     {HOW[case.family]}\n  for     {', '.join(case.gates)}\n"
        + (f"  must    {must}\n  why     {row.why}\n" if row else "")
        + (f"  not run {case.reason}\n" if case.reason else "  runs    nightly, or when it is named\n" if case.nightly else "")
        + f"  run it  chaos-gate run --only {case.id}\n\n"
    )


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False, markup=False).print(table)

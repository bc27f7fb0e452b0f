"""`chaos-gate recheck` and `report`: judge recorded evidence again, from disk; nothing is started."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos import __version__, attestation
from chaos.checks import judge as judge_history
from chaos.checks.longrun import Account
from chaos.collector import absent, selected_gates
from chaos.config import load
from chaos.errors import UsageError
from chaos.evidence import bundle
from chaos.evidence.store import STORE, Store, merge
from chaos.gates import judge, verdict
from chaos.gates import load as load_gates
from chaos.model import EXIT_CODES, Finding, Outcome
from chaos.session import config_path, limits_for

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.checks import Limits
    from chaos.evidence.record import Run


def recheck(directory: Path, given: str | None, *, as_json: bool) -> int:
    """Every check again on every recorded history, then the gates; prints what changed against the recorded verdicts."""
    from chaos.terminal import run_json  # noqa: PLC0415

    store = _store(directory)
    recorded = store.run()
    config = load(config_path(given))
    gates = load_gates(config.gates)
    limits = limits_for(config, gates, seed=recorded.seed, given=given)
    findings: list[Finding] = []
    account = Account(limits)
    for history in store.histories():
        account.feed(history)
        findings += judge_history(history, limits)
    findings += account.findings()
    seen = {one.check for one in findings}
    # What has no history of its own (not applicable, crashed, never heard of) stands as it was recorded.
    findings += [one for one in recorded.findings if one.check not in seen]
    absent = {gate.id: gate.reason for gate in recorded.gates if gate.outcome is Outcome.NOT_APPLICABLE}
    results = judge(findings, gates, absent=absent, waivers=dict(config.waivers))
    chosen = frozenset(recorded.selected) or selected_gates(tuple(recorded.only.split()))
    last = verdict(results, gates, profile=recorded.profile, selected=chosen)
    run = replace(recorded, gates=results, findings=tuple(findings), verdict=last)
    if as_json:
        sys.stdout.write(run_json(run) + "\n")
    else:
        _compare(recorded, run, directory)
    return EXIT_CODES[last]


def _compare(before: Run, after: Run, directory: Path) -> None:
    old = {gate.id: gate.outcome for gate in before.gates}
    changed = [
        f"  {gate.id}: {old[gate.id]} -> {gate.outcome}  {gate.reason}"
        for gate in after.gates
        if old.get(gate.id) != gate.outcome
    ]
    sys.stdout.write(
        f"{after.verdict.value}  {directory}: {len(after.findings)} findings judged again; recorded verdict {before.verdict.value}\n"
        + ("\n".join(changed) + "\n" if changed else "  every gate as recorded\n")
    )


def opened(directory: Path, given: str | None) -> tuple[Run, Limits]:
    """A recorded run, and what its checks are held against by this chaos.toml."""
    run = _store(directory).run()
    config = load(config_path(given))
    return run, limits_for(config, load_gates(config.gates), seed=run.seed, given=given)


def rewrite(directory: Path) -> tuple[Path, ...]:
    """Report, scorecard, JUnit and evidence.json again from the store; the paths of what people read. `latest` stays as it is."""
    store = _store(directory)
    bundle.write(directory, store.run(), store, latest=False)
    store.close()
    attestation.reseal(directory)
    return directory / bundle.REPORT, directory / "scorecard.pdf", directory / "scorecard.html"


def write_template(given: str | None, directory: Path) -> tuple[Path, Path]:
    """The scorecard of this chaos.toml's targets, before any run: (PDF, page)."""
    from chaos.evidence import scorecard  # noqa: PLC0415  (jinja2, typst)

    config = load(config_path(given))
    gates = load_gates(config.gates)
    results = judge([], gates, absent=absent(config, gates), waivers=dict(config.waivers))
    made = scorecard.blank(config.target.name, results, {gate.id: gate.title for gate in gates.values()}, version=__version__)
    return scorecard.write(directory, made, name="scorecard-template")


def _store(directory: Path) -> Store:
    if not directory.is_dir():
        raise UsageError("there is no evidence here", remedy="name a directory that `chaos-gate run` wrote", where=str(directory))
    if (directory / STORE).exists():
        return Store(directory / STORE)
    return merge(directory)

"""What makes a run's evidence one that others can check: it is held against itself before the last word, and sealed after it.

The order has no circle in it. Before evidence.json is written, the chains of all segments are walked, the policy is compared with the
one that the run judges by, and every gate is recomputed by `chaos.verify`, which shares no code with the judging side; what came of it
is a finding for rep.attestation, chained as every other. Then evidence.json and the reports are written, and the statement is made,
and signed, over the final files.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import verify
from chaos.errors import UsageError
from chaos.evidence import policy, signing
from chaos.evidence.attested import ENDED
from chaos.evidence.disk import write_text
from chaos.evidence.redact import hide, in_json, redact
from chaos.evidence.rows import plain, revive
from chaos.evidence.statement import ATTESTATION, statement
from chaos.evidence.store import SEGMENTS, STORE, Segment, Store, kept
from chaos.model import Finding, Outcome, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from securesystemslib.signer import CryptoSigner

    from chaos.model import GateResult

GATE, CHECK = "rep.attestation", "attestation"
EXPECTED = (
    "every record is chained to the one before it and to the policy that was fixed before the start, and a verifier that shares no "
    "code with the judging side comes to the same numbers (docs/attestation.md)"
)


def key() -> CryptoSigner | None:
    """Of CHAOS_SIGNING_KEY; None when it is not set. Raises UsageError."""
    named = os.environ.get(signing.KEY_ENV)
    return signing.signer(Path(named)) if named else None


def concluded(
    directory: Path,
    findings: Sequence[Finding],
    judged: Callable[[Sequence[Finding]], Iterable[GateResult]] | None,
    *,
    ended: str,
    secrets: Iterable[str],
    resumed: bool,
) -> list[Finding]:
    """The last records of a run, by its controller: what no worker kept, how it ended, whether all of it verifies.

    Returns the findings as they are kept, without secrets. `judged` makes gates of findings (None: no policy was fixed, so nothing
    can be attested). `ended` is what ended the run early. Raises EvidenceUnwritable.
    """
    path, known = directory / SEGMENTS / "controller.sqlite", tuple(secrets)
    if resumed:
        path.unlink(missing_ok=True)  # what an earlier part of the run said of its end
    have, rest = _as_kept(findings, directory, known)
    with Segment(path, secrets=known) as segment:
        if rest:
            segment.add(rest)
        if ended:
            segment.phase(ENDED + redact(ended.partition("\n")[0], known), now())
    have += rest
    found = [examine(directory, judged(have))] if judged is not None else []
    with Segment(path, secrets=known) as segment:
        if found:
            segment.add(found)
        segment.phase("concluded", now())
    return have + found


def _as_kept(findings: Iterable[Finding], directory: Path, secrets: tuple[str, ...]) -> tuple[list[Finding], list[Finding]]:
    """(as the segments hold them, those that are in none), told apart by all but their words, of which a segment hides secrets."""
    there: dict[tuple[object, ...], list[Finding]] = {}
    for one in kept(directory):
        there.setdefault(_numbers(one), []).append(one)
    have, rest = [], []
    for one in findings:
        if same := there.get(_numbers(one)):
            have.append(same.pop(0))
        else:
            hidden: Finding = revive(Finding, in_json(plain(one), partial(hide, secrets=secrets)))
            rest.append(hidden)
    return have, rest


def _numbers(one: Finding) -> tuple[object, ...]:
    return one.check, one.gate, one.outcome, one.experiment, one.took_effect, one.n, one.bad, one.deff, one.severity


def examine(directory: Path, results: Iterable[GateResult]) -> Finding:
    """The finding for rep.attestation, from the segments as they are on disk and the gates as the run judges them.

    FAIL where the record itself does not hold (a chain is broken, the policy was changed); INCONCLUSIVE where both sides count
    differently: then one of them is wrong, and nothing says which.
    """
    report, again, links = verify.recorded(directory)
    broken = [f"{one.where}: {one.what}" for step in report.steps if step.name != "rows" for one in step.problems]
    counted = [f"{one.where}: {one.what}" for step in report.steps if step.name == "rows" for one in step.problems]
    judged = {one.id: one for one in results}
    counted += [_differs(one, judged[one.id]) for one in again if one.id != GATE and one.id in judged]
    differing = [text for text in counted if text]
    outcome = Outcome.FAIL if broken else Outcome.INCONCLUSIVE if differing else Outcome.PASS
    told = f"a chain of {links:,} records verifies, policy fixed before the start, {len(again)} gates recomputed"
    return Finding(
        check=CHECK,
        gate=GATE,
        outcome=outcome,
        detail="; ".join((broken or differing)[:3]) or told,
        n=links,
        bad=len(broken),
        expected=EXPECTED,
        examples=tuple((broken + differing)[:5]),
        rerun=f"chaos-gate verify {directory.name}",
    )


def _differs(again: verify.Gate, result: GateResult) -> str:
    """What two recomputations of one gate differ in; '' when in nothing."""
    pairs = (
        ("verdict", again.verdict, result.outcome.value),
        ("n", again.n, result.n),
        ("measured", again.measured, result.measured),
        ("bound", again.bound, result.bound),
    )
    wrong = [f"{name} {one!r}, not {other!r}" for name, one, other in pairs if not verify.same(one, other)]
    return f"{again.id}: recomputed {', '.join(wrong)}" if wrong else ""


def seal(directory: Path, by: CryptoSigner | None) -> None:
    """Write attestation.json over all files that are there. Raises UsageError: there is nothing that could be attested."""
    fixed = policy.read(directory)
    if fixed is None:
        raise UsageError(
            "this evidence has no policy.json, so nothing says by what it was to be judged",
            remedy="attest what this version of chaos-gate recorded",
            where=str(directory),
        )
    with Store(directory / STORE) as store:
        text = statement(directory, store.run(), store, fixed)
    write_text(directory / ATTESTATION, signing.envelope(text, by))


def reseal(directory: Path) -> None:
    """After files of a sealed directory were written again: with CHAOS_SIGNING_KEY, or unsigned. Nothing where there was no seal."""
    if (directory / ATTESTATION).is_file():
        seal(directory, key())

"""junit.xml: what CI systems show. One suite a gate, one case a check; several findings of one check are one case, worst first.

A file of its own, beside whatever pytest's --junitxml writes: pytest's cases are experiments, these are checks. It agrees with
the exit code: in a run that ended GO or CLEAR nothing is a failure or an error, and what was not proven here is skipped, with its
reason.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from chaos.evidence.redact import redact
from chaos.evidence.schema import moment
from chaos.model import Finding, Outcome, Verdict, worst

if TYPE_CHECKING:
    from chaos.evidence.record import Run

Clean = Callable[[str], str]


def junit(run: Run, *, seconds: Mapping[str, float] | None = None, secrets: Sequence[str] = ()) -> str:
    """The file's text. `seconds` maps an experiment to how long it took."""

    def clean(text: str) -> str:
        return redact(text, secrets)

    took = seconds or {}
    root = ET.Element("testsuites", name="chaos-gate", timestamp=moment(run.started), time=f"{run.finished - run.started:.3f}")
    by_gate: dict[str, dict[str, list[Finding]]] = {}
    for finding in run.findings:
        by_gate.setdefault(finding.gate, {}).setdefault(finding.check, []).append(finding)
    if run.environment_error:
        suite = ET.SubElement(root, "testsuite", name="environment")
        case = ET.SubElement(suite, "testcase", classname="chaos", name="environment", time="0")
        text = clean(run.environment_error)
        ET.SubElement(case, "error", type="environment", message=text.splitlines()[0]).text = text
        _count(suite)
    for gate, checks in by_gate.items():
        suite = ET.SubElement(root, "testsuite", name=gate, timestamp=moment(run.started))
        properties = ET.SubElement(suite, "properties")
        for name, value in (
            ("target", run.target),
            ("profile", run.profile),
            ("seed", str(run.seed)),
            ("verdict", run.verdict.value),
        ):
            ET.SubElement(properties, "property", name=name, value=clean(value))
        for check, found in checks.items():
            time = sum(took.get(experiment, 0.0) for experiment in {one.experiment for one in found})
            case = ET.SubElement(suite, "testcase", classname=f"chaos.{gate}", name=clean(check), time=f"{time:.3f}")
            _result(case, run, found, clean)
        _count(suite)
    _total(root)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _result(case: ET.Element, run: Run, found: Sequence[Finding], clean: Clean) -> None:
    outcome = worst(one.outcome for one in found)
    told = [one for one in found if one.outcome is outcome]
    message = clean(told[0].detail)
    if outcome is Outcome.PASS:
        ET.SubElement(case, "system-out").text = "\n".join(clean(one.detail) for one in told)
        return
    waived = next((gate for gate in run.of(Outcome.WAIVED) if gate.id == found[0].gate), None)
    if waived is not None or outcome in {Outcome.NOT_APPLICABLE, Outcome.WAIVED}:
        ET.SubElement(case, "skipped", message=clean(waived.reason) if waived else f"not applicable: {message}")
        return
    text = "\n\n".join(clean(story(one)) for one in told)
    if outcome is Outcome.FAIL:
        ET.SubElement(case, "failure", type=found[0].gate, message=message).text = text
    elif run.verdict in {Verdict.GO, Verdict.CLEAR}:
        ET.SubElement(case, "skipped", message=f"not proven here: {message}")
    else:
        ET.SubElement(case, "error", type="not proven", message=message).text = text


def story(finding: Finding) -> str:
    """A finding as a bug report: what was broken, expected and seen, examples, and the line that runs it again."""
    broken = finding.fault or finding.experiment
    if finding.took_effect is False:
        broken += " (it was not seen to take effect)"
    seen = finding.detail + (f" [{finding.bad:,} of {finding.n:,}]" if finding.bad else "")
    lines = [f"{name}: {text}" for name, text in (("broken", broken), ("expected", finding.expected), ("seen", seen)) if text]
    lines += [f"  {example}" for example in finding.examples]
    return "\n".join([*lines, f"again: {finding.rerun}"] if finding.rerun else lines)


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _total(root: ET.Element) -> None:
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))

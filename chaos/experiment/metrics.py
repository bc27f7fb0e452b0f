"""The target's metrics, read before, while and after something happens of which they have to tell."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

from cryptography import x509

from chaos.checks import metrics as judged
from chaos.checks import panels
from chaos.experiment.core import Plan, under_fault
from chaos.experiment.faults import served
from chaos.faults.database import Locks
from chaos.model import History, Kind, now
from chaos.traffic import marked, scrape
from chaos.traffic.driver import wait_for
from chaos.traffic.marked import Marked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig
    from chaos.traffic.marked import Sent

PATIENCE = 2.5  # s in which a counter may still be behind
READS, TURNS, CRAWLED = 10, 2, 3  # good reads; how often each invalid request is sent; visits of a crawler
LOOKS, LOOKING = 8, 3.0  # at the pool while it is held, and s for all of them
UNCERTAIN = {404, 405}  # what a framework answers before any middleware that counts


class _Scrapes:
    """All scrapes of one experiment, by name, as they go into the facts."""

    def __init__(self, rig: Rig, recording: Recording) -> None:
        self._rig, self._recording = rig, recording
        self.names: Mapping[str, str] = dict(rig.config.target.metrics.names) if rig.config.target.metrics else {}
        self.taken: dict[str, dict[str, Any]] = {}
        recording.facts |= {"metrics.names": json.dumps(self.names), "metrics.expected": "{}"}

    def take(self, name: str) -> dict[str, Any]:
        """Scrape now."""
        table = self._rig.config.target.metrics
        got = self._rig.driver.call(scrape.scrape(self._rig.driver.session, table.path if table else "/metrics"))
        made: dict[str, Any] = {"error": got.error, "values": {}, "series": 0}
        if not got.error:
            try:
                series = panels.read(got.text, got.media_type)
                made |= {**panels.snapshot(series, self.names), "series": len(series)}
            except panels.NotPrometheusError as error:
                made["error"] = str(error)
        self.taken[name] = made
        self._recording.facts["metrics.scrapes"] = json.dumps(self.taken)
        return made

    def begin(self) -> dict[str, Any]:
        """The one to compare with; three in a row show whether one process answers them all."""
        rows = [self.take("before")]
        while len(rows) < 3 and not rows[-1]["error"]:
            rows.append(self.take("before"))
        counted = [role.id for role in panels.roles() if role.kind != "gauge"]
        fell = any(
            later["values"].get(role, {}).get(name, 0.0) < value
            for earlier, later in itertools.pairwise(rows)
            for role in counted
            for name, value in earlier["values"].get(role, {}).items()
        )
        self._recording.facts["metrics.steady"] = "no" if fell else "yes"
        return rows[-1]

    def until(self, expected: Mapping[str, list[float]], before: Mapping[str, Any], name: str = "after") -> None:
        """Scrape until what is expected shows, or for as long as it may take."""
        self._recording.facts["metrics.expected"] = json.dumps(expected)

        def shown() -> bool:
            after = self.take(name)
            return bool(after["error"]) or not judged.short(expected, before, after)

        wait_for(shown, PATIENCE, every=0.25)

    def most(self, name: str, role: str, times: int) -> None:
        """Scrape so many times, or for a while: a service whose threads wait answers late. The largest values of a gauge count."""
        largest: dict[str, float] = {}
        end = now() + LOOKING
        for turn in range(times):
            if turn and now() > end:
                break
            made = self.take(name)
            if made["error"]:
                return
            for metric, value in made["values"].get(role, {}).items():
                largest[metric] = max(value, largest.get(metric, value))
            made["values"][role] = dict(largest)
            time.sleep(0.1)
        self._recording.facts["metrics.scrapes"] = json.dumps(self.taken)


def metrics(rig: Rig, case: Case, recording: Recording) -> History:
    """Good requests, wrong ones, unknown hosts, and a crawler, with nothing broken."""
    del case
    scrapes = _Scrapes(rig, recording)
    before = scrapes.begin()
    if before["error"]:
        return recording.history()
    target = rig.config.target
    good = [Marked(kind="good", request=target.read[n % len(target.read)]) for n in range(READS)]
    wrong = [Marked(kind="invalid", request=one) for one in target.invalid] * TURNS
    sent = _send(rig, [*good, *wrong, *marked.refused(target), *_crawled(rig)])
    expected = _expected(sent)
    scrapes.until(expected, before)
    if rig.ours:
        _note_ends(rig, recording)
    rig.check_alive()
    return recording.history()


def _expected(sent: Sequence[Sent]) -> dict[str, list[float]]:
    """Role -> (at least, at most) so many more; an upper end of 0 means that there is none."""
    failed = [one for one in sent if one.status is not None and one.status // 100 == 4]
    wrong = [one for one in failed if one.marked.kind == "invalid" and one.status not in UNCERTAIN]
    refused = [one for one in failed if one.marked.kind == "refused"]
    good = [one for one in sent if one.status is not None and one.status < 300]
    pages = [one for one in good if one.marked.kind == "crawled" and one.path == "/"]
    return {
        "errors_4xx": [len(wrong), len(failed)],
        "unknown_host": [len(refused), len(refused)],
        "latency": [sum(one.marked.kind == "good" for one in good), 0],
        "seo": [min(1, len(pages)), 0],
    }


def _crawled(rig: Rig) -> list[Marked]:
    """A search engine's visits to the first SEO host."""
    target = rig.config.target
    if target.hosts is None or not target.hosts.seo:
        return []
    host = target.hosts.seo[0].replace("*", "chaos-gate", 1)
    page = target.read[0].model_copy(update={"path": "/"})
    agent = {"User-Agent": marked.CRAWLER}
    return [Marked(kind="crawled", request=one, host=host, headers=agent) for one in (page, target.read[0])] * CRAWLED


def _send(rig: Rig, requests: Sequence[Marked]) -> list[Sent]:
    return rig.driver.call(marked.send_all(rig.driver.session, requests, deadline=rig.driver.deadline))


def _note_ends(rig: Rig, recording: Recording) -> None:
    """When the certificates end that the database serves: epoch seconds, and days from now."""
    chain = x509.load_pem_x509_certificates(rig.identity("valid").chain_file.read_bytes())
    chain += x509.load_pem_x509_certificates(rig.environment.postgres.ca_file.read_bytes())
    ends = sorted({one.not_valid_after_utc.timestamp() for one in chain})
    recording.facts |= {
        "metrics.ends": json.dumps(ends),
        "metrics.days": json.dumps([round((end - now()) / 86_400, 2) for end in ends]),
    }


def metrics_tls(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL shows a certificate of nobody's: errors, failed connections and retries have to show."""
    fault = served(rig, case.what, case.id, case.title)
    scrapes = _Scrapes(rig, recording)
    before, since = scrapes.begin(), now()
    attempts = 0

    def enough() -> bool:
        nonlocal attempts
        attempts = sum(one.opened >= since for one in rig.path.connections(since))
        scrapes.take("during")
        return True

    history = under_fault(rig, recording, Plan(fault, enough=enough, met=True))
    if recording.exited:
        return history
    failed = [
        one
        for one in rig.driver.recorder.since(since)
        if one.started >= since and one.kind in {Kind.READ, Kind.WRITE} and one.status is not None and one.status >= 500
    ]
    expected = {"errors_5xx": [len(failed), 0], "tls_errors": [min(1, attempts), 0], "retries": [min(1, attempts), 0]}
    scrapes.until({role: [float(low), high] for role, (low, high) in expected.items()}, before)
    return recording.history()


def metrics_pool(rig: Rig, case: Case, recording: Recording) -> History:
    """Every table locked: the pool is held by waiting queries, and its gauge says so."""
    del case
    scrapes = _Scrapes(rig, recording)
    scrapes.begin()
    fault = Locks(rig.environment.postgres, rig.driver.add_reader, time.sleep)

    def enough() -> bool:
        scrapes.most("during", "pool_busy", LOOKS)
        return True

    recording.facts["metrics.compared"] = "during"
    history = under_fault(rig, recording, Plan(fault, enough=enough))
    window = history.windows[0]
    held = window.effect.count if window.effect.took else 0
    recording.facts["metrics.expected"] = json.dumps({"pool_busy": [float(held), 0.0]})
    if not recording.exited:
        scrapes.take("after")
    if fault.locked >= 0 and not held:
        recording.facts["absent"] = f"all {fault.locked} tables were locked, and no session of the target's came to wait"
    return recording.history()

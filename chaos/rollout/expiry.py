"""The alert on certificates that end soon, as operators get it: our exporter, a rule file, a real promtool, a real Prometheus.

For a leaf, an intermediate, a root and a revocation list there is one each with the limit's days left, with one less, and with one
more. The served ones are presented by a wire each, so that all can be looked at together; the exporter reads them as it would read
production's. What it says goes to promtool as a series and to a Prometheus that scrapes it. In the end PostgreSQL itself serves a
leaf with a day less than the limit.

The commands are those that operators run, in processes of their own: `chaos-gate export prometheus` and `... certificates`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

from chaos.certs import Authority, Entry, Issuer, Zoo
from chaos.environments.local import prometheus
from chaos.errors import ConfigError, PartFailed, PartMissing
from chaos.faults.wire import Impostor, Wire
from chaos.gates import load as load_gates
from chaos.processes import free_port
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.cases import Case
    from chaos.environments.local.prometheus import Tools
    from chaos.experiment import Recording
    from chaos.model import History
    from chaos.processes import Reaper
    from chaos.rig import Rig

NOT_AFTER = "chaos_certificate_not_after_timestamp_seconds"
ROLES = ("leaf", "intermediate", "root", "crl")
PATIENCE = 30.0  # s for Prometheus to start, or to have evaluated its rules
DAY = 86_400.0
HOLD = "1h"  # a rule may wait so long (`for`) before it fires
_SERIES = re.compile(rf"^{NOT_AFTER}\{{(.*)\}} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class State:
    """One certificate with `days` left, `source` as the exporter names it; `expected`: whether the alert has to fire."""

    role: str
    days: float
    source: str
    expected: bool


def run(rig: Rig, case: Case, recording: Recording, command: Sequence[str]) -> History:
    """Facts: 'states' (JSON, one object a state: what promtool and Prometheus made of it), 'served', 'missing', 'tools'."""
    del case
    facts = recording.facts
    limit = load_gates(rig.config.gates)["sec.cert_expiry"].limit
    facts["limit"] = f"{limit:g}"
    try:
        tools = prometheus.ensure()
    except PartMissing as error:
        facts["missing"] = error.render()
        return recording.history()
    facts["tools"] = tools.version
    room = rig.run_dir / rig.worker / "expiry"
    room.mkdir(parents=True, exist_ok=True)
    rules = _rules(rig, room, command, facts)
    if facts["rules.read"] != "True":
        return recording.history()
    _well_formed(tools, rules)
    with ExitStack() as ending:
        states = _states(room, limit, ending)
        own = _own_server(rig)
        watched = [*states, *([own] if own else [])]
        exporter = _exporter(rig.reaper, room, command, watched, ending)
        text = httpx.get(exporter, timeout=PATIENCE, trust_env=False).text
        told = [_by_promtool(tools, rules, room, state, text) for state in states]
        server = _Prometheus(rig.reaper, tools, rules=rules, room=room, exporter=exporter, ending=ending)
        raised = server.raised(len(_SERIES.findall(text)))
        for state, one in zip(states, told, strict=True):
            one["prometheus"] = state.source in raised
        facts["states"] = json.dumps(told)
        if own is not None:
            facts["served.before"] = str(own.source in raised)
            facts["served"] = str(_serve(rig, limit, server, own))
    return recording.history()


def _rules(rig: Rig, room: Path, command: Sequence[str], facts: dict[str, str]) -> Path:
    """The operators' own rules where chaos.toml names them, else what `chaos-gate export prometheus` writes."""
    alerts = rig.config.target.alerts
    if alerts is not None:
        facts["rules"] = str(alerts.rules)
        facts["rules.read"] = str(NOT_AFTER in alerts.rules.read_text(encoding="utf-8"))
        return alerts.rules.resolve()
    facts["rules"], facts["rules.read"] = "chaos-gate export prometheus", "True"
    path = room / "rules.yml"
    _command([*command, "export", "prometheus", "--only", "certificates", "-c", str(rig.config.path), "-o", str(path)])
    return path


def _well_formed(tools: Tools, rules: Path) -> None:
    """ConfigError when Prometheus would not load the file."""
    done = subprocess.run([tools.promtool, "check", "rules", rules], capture_output=True, text=True, timeout=60.0, check=False)
    if done.returncode:
        raise ConfigError(
            "promtool does not take these rules",
            remedy="mend the file: promtool check rules FILE",
            where=str(rules),
            tail=tuple((done.stdout + done.stderr).splitlines()[-4:]),
        )


def _command(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60.0, check=False)
    if done.returncode:
        raise PartFailed(
            f"`{' '.join(argv[-6:])}` ended with status {done.returncode}",
            remedy="run it by hand",
            where="export",
            tail=tuple((done.stdout + done.stderr).splitlines()[-6:]),
        )


def _states(room: Path, limit: float, ending: ExitStack) -> list[State]:
    """All of them, the served ones being served."""
    ends = {days: (-60.0, days) for days in (limit + 1, limit, limit - 1)}
    zoo = Zoo.load()
    above = [Issuer(name=f"above-{days:g}", parent="ca", days=span) for days, span in ends.items()]
    roots = [Issuer(name=f"root-{days:g}", days=span) for days, span in ends.items()]
    authority = Authority.create(room / "certs", zoo=replace(zoo, issuers=(*zoo.issuers, *above, *roots)))
    states = []
    for days, span in ends.items():
        leaf = Entry(name=f"leaf-{days:g}", row="sec.cert_expiry", must="connect", why="it has not ended", days=span)
        below = replace(leaf, name=f"below-{days:g}", days=(-2.0, 365.0 + limit), issuer=f"above-{days:g}")
        for role, entry in (("leaf", leaf), ("intermediate", below)):
            wire = Wire(("127.0.0.1", 9))  # it plays a server, and relays nothing
            ending.callback(wire.stop)
            port = wire.start()
            wire.behave(Impostor(authority.issue(entry)))
            states.append(State(role, days, f"127.0.0.1:{port}", days <= limit))
        states.append(State("root", days, str(authority.bundle(f"root-{days:g}")), days <= limit))
        states.append(State("crl", days, str(authority.crl(days=days)), days <= limit))
    return sorted(states, key=lambda state: (ROLES.index(state.role), -state.days))


def _own_server(rig: Rig) -> State | None:
    """The environment's PostgreSQL, when there is one whose certificate can be changed."""
    if not rig.injects or not hasattr(rig.environment.postgres, "use_certificate"):
        return None
    return State("leaf", 365.0, f"127.0.0.1:{rig.environment.postgres.port}", expected=False)


def _exporter(reaper: Reaper, room: Path, command: Sequence[str], states: Sequence[State], ending: ExitStack) -> str:
    """Started on all states; the URL of its metrics."""
    listen = f"127.0.0.1:{free_port()}"
    files = [part for one in states if "/" in one.source for part in ("--file", one.source)]
    servers = [part for one in states if "/" not in one.source for part in ("--server", one.source)]
    argv = [*command, "export", "certificates", *servers, *files, "--listen", listen]
    process = reaper.spawn(argv, name="exporter", cwd=room, env=dict(os.environ), log=room / "exporter.log")
    ending.callback(process.stop)
    _await(process, f"http://{listen}/metrics", "exporter")
    return f"http://{listen}/metrics"


def _await(process: Any, url: str, name: str) -> None:
    """Until it answers 200; PartFailed when it ends, or never does."""

    def answers() -> bool:
        if process.poll() is not None:
            return True
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=PATIENCE, trust_env=False).status_code == 200
        return False

    if not wait_for(answers, PATIENCE, every=0.05) or process.poll() is not None:
        raise PartFailed("did not start", remedy="read its last words", where=name, tail=process.tail())


# -- promtool -------------------------------------------------------------------------------------------------------------------


def _by_promtool(tools: Tools, rules: Path, room: Path, state: State, text: str) -> dict[str, Any]:
    """`promtool test rules` on what the exporter said of one state: {role, days, expected, left, promtool, said}.

    Its clock starts at 0, so a series holds the seconds left as of now. A leaf of old age stands beside it, so that a rule on
    absence is silent. https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
    """
    series = [
        (dict(_LABEL.findall(labels)), labels, float(value) - time.time())
        for labels, value in _SERIES.findall(text)
        if dict(_LABEL.findall(labels)).get("source") == state.source
    ]
    left = next((seconds for labels, _, seconds in series if labels.get("role") == state.role), None)
    told = [f"{NOT_AFTER}{{{labels}}}" for _, labels, _ in series], [seconds for *_, seconds in series]
    values = [*zip(*told, strict=True), (f'{NOT_AFTER}{{source="beside",role="leaf"}}', 5_000 * DAY)]
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": f"{seconds:.0f}x70"} for name, seconds in values],
                "promql_expr_test": [
                    {
                        "expr": '(count(ALERTS{alertstate="firing"}) or vector(0)) > bool 0',
                        "eval_time": HOLD,
                        "exp_samples": [{"labels": "{}", "value": int(state.expected)}],
                    }
                ],
            }
        ],
    }
    path = room / f"test-{state.role}-{state.days:g}.yml"
    path.write_text(json.dumps(test, indent=1), encoding="utf-8")  # JSON is YAML
    done = subprocess.run([tools.promtool, "test", "rules", path], capture_output=True, text=True, timeout=60.0, check=False)
    said = (done.stdout + done.stderr).strip()
    fired: bool | None = state.expected if done.returncode == 0 else None
    if done.returncode == 1 and "FAILED" in said and "got:" in said:
        fired = not state.expected
    return {
        "role": state.role,
        "days": state.days,
        "expected": state.expected,
        "left": None if left is None else round(left / DAY, 4),
        "promtool": fired,
        "said": "" if fired is state.expected else said[-400:],
    }


# -- Prometheus -----------------------------------------------------------------------------------------------------------------


class _Prometheus:
    """A real one, which scrapes the exporter and evaluates the rules every second."""

    def __init__(self, reaper: Reaper, tools: Tools, *, rules: Path, room: Path, exporter: str, ending: ExitStack) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "certificates", "static_configs": [{"targets": [exporter.split("/")[2]]}]},
            ],
        }
        path = room / "prometheus.yml"
        path.write_text(json.dumps(config), encoding="utf-8")
        argv = [str(tools.prometheus), f"--config.file={path}", f"--storage.tsdb.path={room / 'tsdb'}"]
        argv.append(f"--web.listen-address=127.0.0.1:{port}")
        process = reaper.spawn(argv, name="Prometheus", cwd=room, env=dict(os.environ), log=room / "prometheus.log")
        ending.callback(process.stop)
        _await(process, f"{self._url}/-/ready", "Prometheus")

    def _get(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=query, timeout=PATIENCE, trust_env=False)
        return answer.json()["data"]

    def raised(self, series: int) -> set[str]:
        """The sources with an alert pending or firing, once `series` were scraped and the rules evaluated after that."""

        def scraped() -> bool:
            found = self._get("query", query=f"count({NOT_AFTER})")["result"]
            return bool(found) and int(found[0]["value"][1]) >= series

        if not wait_for(scraped, PATIENCE, every=0.1):
            raise PartFailed("it did not scrape the exporter", remedy="read prometheus.log", where="Prometheus")
        self._evaluated()
        return self._alerts()

    def _evaluated(self) -> None:
        """Until every group was evaluated twice more."""
        seen = self._evaluations()

        def again() -> bool:
            return all(at != seen.get(name, "") for name, at in self._evaluations().items())

        for _ in range(2):
            wait_for(again, PATIENCE, every=0.1)
            seen = self._evaluations()

    def _evaluations(self) -> Mapping[str, str]:
        return {group["file"] + group["name"]: group["lastEvaluation"] for group in self._get("rules")["groups"]}

    def _alerts(self) -> set[str]:
        return {one["labels"].get("source", "") for one in self._get("alerts")["alerts"] if one["state"] in {"pending", "firing"}}

    def await_alert(self, source: str) -> bool:
        """Whether an alert about this source comes up."""
        return wait_for(lambda: source in self._alerts(), 10.0, every=0.2)


def _serve(rig: Rig, limit: float, server: _Prometheus, own: State) -> bool:
    """PostgreSQL serves a leaf with a day less than the limit; whether the alert comes up. The right one is served again."""
    postgres, authority = rig.environment.postgres, rig.environment.authority
    entry = Entry(name=f"served-{limit - 1:g}", row="sec.cert_expiry", must="connect", why="valid", days=(-60.0, limit - 1))
    soon, good = authority.issue(entry), rig.identity("valid")
    try:
        postgres.use_certificate(soon.chain_file, soon.key_file)
        return server.await_alert(own.source)
    finally:
        postgres.use_certificate(good.chain_file, good.key_file)

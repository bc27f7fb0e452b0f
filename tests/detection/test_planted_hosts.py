"""Small services with real servers under them, each wrong about hosts in one way: red at its own rows and gate, and at no other.

By default each is started as a process of its own and asked as a run would ask it; through `chaos-gate run` go the healthy one and the
real Starlette 0.47.2, and all of them with CHAOS_DETECTION=all (two minutes more).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from chaos.checks import hosts
from chaos.config import load
from chaos.environments.local.pinned import packages
from chaos.errors import PartMissing
from chaos.model import History, Outcome
from chaos.traffic.hosts import observe
from chaos.traffic.requests import Session
from tests.detection.conftest import TARGETS

PLACE = TARGETS / "hosts"
ROOT = TARGETS.parents[2]
CONFIG = PLACE / "chaos.toml"
SERVED, SHOWN, LISTED = "sec.unknown_host_2xx", "sec.pentest", "sec.host_allowlist"
OLD = {
    # What stands behind the first colon is cut off before it is compared, and a wildcard is compared with the end: the URL that is
    # built from such a Host has another authority or path (CVE-2026-48710). The comparison knows case. H07 and H09 are httptools'.
    SERVED: {"H10b", "H12", "H17", "H18", "H19", "H20", "H22", "H07", "H09"},
    LISTED: {"H62"},
}
DEFECTS = {
    "suffix": {SERVED: {"H03", "H72", "H72b"}},
    "prefix": {SERVED: {"H02", "H72b"}},
    "regex_not_anchored": {SERVED: set("H02 H03 H10 H10b H11 H12 H13 H18 H19 H20 H22 H72 H72b".split())},
    "dot_is_any_letter": {SERVED: {"H03", "H72", "H72b"}},
    "route_outside": {SERVED: {"H43"}},
    "write_outside": {SERVED: {"H43d"}},
    "options_outside": {SERVED: {"H41", "H43c"}},
    "exempt_unanchored": {SERVED: {"H50"}},
    "x_forwarded_host": {SERVED: {"H35b"}},
    "forwarded": {SERVED: {"H36b"}},
    "port_not_looked_at": {SERVED: {"H12", "H18", "H19", "H20", "H10b"}},
    "last_line_counts": {SERVED: {"H08", "H09"}},
    "host_is_optional": {SERVED: {"H04", "H06", "H34"}},
    "once_a_connection": {SERVED: {"H40"}},
    "redirects_first": {
        SERVED: set("H01 H02 H03 H08 H10 H11 H12 H13 H17 H35b H36b H40 H41 H42 H43 H43c H43d H48 H50 H71b H72 H72b".split())
    },
    "case_matters": {LISTED: {"H62"}},
    "mail_link": {SHOWN: {"H35d"}},
    "canonical_link": {SHOWN: {"H35c"}},
}
ALL = os.environ.get("CHAOS_DETECTION") == "all"


@pytest.fixture(scope="module")
def old_starlette():
    """PYTHONPATH with the real Starlette 0.47.2 on it."""
    try:
        return {"DEFECT": "trusted_host_middleware", "PYTHONPATH": str(packages(PLACE / "starlette-0.47.2.txt"))}
    except PartMissing as missing:
        pytest.skip(f"no package index: {missing}")


@contextmanager
def serving(env):
    """The port of the service, without a database, while it runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "PYTHONPATH", "DEFECT"}}
    running = subprocess.Popen(
        [sys.executable, "service.py", str(port)], cwd=PLACE, env={**clean, **env}, start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until and running.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        assert running.poll() is None, running.stderr.read().decode()
        yield port
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def recorded(env, *, per_class=320, seed=7):
    """What a run asks about hosts, and what was answered."""
    target, facts = load(CONFIG).target, {}
    with serving(env) as port:
        session = Session(target=target, base_url=f"http://127.0.0.1:{port}")
        asked = observe(target, session, address=("127.0.0.1", port), seed=seed, per_class=per_class, facts=facts)
    return History(experiment="hosts", started=0.0, operations=asked, facts=facts)


def judged(env, *, per_class=320):
    """Check -> finding."""
    return {one.check: one for one in hosts.judge(recorded(env, per_class=per_class))}


def red(found):
    gates = {}
    for one in found.values():
        if one.outcome is Outcome.FAIL:
            gates.setdefault(one.gate, set()).add(one.check)
    return gates


def test_the_healthy_one_is_clean():
    found = judged({})
    assert red(found) == {}
    assert [one.check for one in found.values() if one.outcome is Outcome.INCONCLUSIVE] == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_red_at_its_own_rows_and_no_other(defect):
    found = red(judged({"DEFECT": defect}, per_class=60))
    assert found == DEFECTS[defect]


@pytest.mark.parametrize(("style", "row"), [("health_for_anybody", "H43b"), ("probes_everywhere", "H69b")])
def test_what_good_services_differ_on_is_red_only_by_policy(style, row):
    history = recorded({"DEFECT": style}, per_class=40)
    found = {one.check: one for one in hosts.judge(history)}
    assert red(found) == {}
    assert found[row].outcome is Outcome.NOT_APPLICABLE
    assert f'served (1 x 200 (application)); reported only (the default), "{row}" in [policy] decides' in found[row].detail
    decided = {one.check: one for one in hosts.judge(history, policy={row: "reject"})}
    assert red(decided) == {SERVED: {row}}


def test_the_smallest_host_that_is_let_by_is_told():
    found = judged({"DEFECT": "port_not_looked_at"}, per_class=60)
    told = found["H10b"].examples[-1]
    assert told.startswith("smallest that fails, b'shop.example.test:@a.example': printf 'GET /items/1 HTTP/1.1\\r\\nHost: "), (
        told
    )
    assert told.endswith("\\r\\n' | nc 127.0.0.1 $PORT")


def test_the_real_old_starlette(old_starlette):
    assert red(judged(old_starlette, per_class=60)) == OLD


def test_todays_starlette():
    """The same service, the same middleware, the version that is installed: what is left is the doubled Host that httptools lets by."""
    assert red(judged({"DEFECT": "trusted_host_middleware"}, per_class=60)) == {SERVED: {"H07", "H09"}}


@pytest.mark.parametrize("defect", DEFECTS if ALL else ["exempt_unanchored"])
def test_a_whole_run(suite, defect):
    result = suite(CONFIG, env={"DEFECT": defect}, only=("hosts",))
    assert result.failed == set(DEFECTS[defect]), result.open_checks
    assert {check for check in result.failed_checks if check.startswith("H")} == set().union(*DEFECTS[defect].values())
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_a_whole_run_on_the_real_old_starlette(suite, old_starlette):
    result = suite(CONFIG, env=old_starlette, only=("hosts",))
    assert result.failed == set(OLD), result.open_checks
    assert set(result.failed_checks) == set().union(*OLD.values())


@pytest.mark.skipif(not ALL, reason="ten seconds of a core: CHAOS_DETECTION=all")
def test_a_whole_run_on_the_healthy_one(suite):
    result = suite(CONFIG, env={}, only=("hosts",))
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


@pytest.mark.skipif(not ALL, reason="ten seconds of a core, and packages that are fetched: CHAOS_DETECTION=all")
def test_the_table_of_frameworks_can_be_made():
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "framework_hosts.py"), "--only", "Flask, TRUSTED_HOSTS"],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "| H01 | an unknown host | refused | 400 |" in made.stdout
    assert "- sec.host_allowlist: H62" in made.stdout
    written = (ROOT / "docs" / "framework-hosts.md").read_text(encoding="utf-8")
    assert (ROOT / "benchmarks" / "frameworks" / "notes.md").read_text(encoding="utf-8").strip() in written

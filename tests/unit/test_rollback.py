"""The one command by itself, whoever put the release out; and what its rehearsals are judged by."""

import json
import os
import signal
import stat
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from click.testing import CliRunner

from chaos.checks import Limits, judge
from chaos.checks.rollbacks import upper_quantile
from chaos.cli import cli
from chaos.environments.local.edge import CaddyEdge
from chaos.errors import ConfigError
from chaos.model import Effect, History, Kind, Operation, Outcome, Window
from chaos.processes import Reaper, free_port
from chaos.rollout.releases import DRILLS, planned
from chaos.rollout.rollback import State
from chaos.watchdog import start_time

LIMITS = Limits(recovery=10, fail_fast=5, schema=None)
ANSWERS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# Whoever puts a release out: the state first, then the weights; it is killed before it can do any more.
DEPLOYER = """
import json, sys, time
from pathlib import Path
from chaos.rollout.rollback import State
from chaos.environments.local.edge import set_weights
told = json.loads(sys.argv[1])
State(**told).write(Path(sys.argv[2]))
set_weights(told["admin_url"], told["upstreams"], {"good": 0, "bad": 100})
print("out", flush=True)
time.sleep(600)
"""


class Broken(BaseHTTPRequestHandler):
    """The bad release."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def bad():
    server = HTTPServer(("127.0.0.1", 0), Broken)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_the_deployer_is_killed_and_the_old_release_does_not_run_any_more(tmp_path, bad):
    upstreams = {"good": free_port(), "bad": bad}
    with Reaper("rollback-test") as reaper:
        edge = CaddyEdge(upstreams, reaper=reaper, directory=tmp_path / "edge")
        told = {
            "url": f"http://127.0.0.1:{edge.port}",
            "path": "/",
            "headers": {},
            "good": "good",
            "admin_url": edge.admin_url,
            "upstreams": upstreams,
            "start": [sys.executable, "-c", ANSWERS, str(upstreams["good"])],
            "log": str(tmp_path / "good.log"),
        }
        place = tmp_path / "rollout.json"
        deployer = subprocess.Popen(
            [sys.executable, "-c", DEPLOYER, json.dumps(told), str(place)], stdout=subprocess.PIPE, text=True
        )
        assert deployer.stdout.readline() == "out\n"
        deployer.kill()
        deployer.wait()
        deployer.stdout.close()
        assert httpx.get(told["url"], trust_env=False).status_code == 500
        done = subprocess.run(
            [sys.executable, "-m", "chaos", "rollback", "--state", str(place)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        pid = int((tmp_path / "good.log.pid").read_text(encoding="ascii"))
        try:
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("rolled back: serving again after ")
            assert httpx.get(told["url"], trust_env=False).status_code == 200
            assert start_time(pid), "it outlives the command that started it"
            again = subprocess.run([sys.executable, "-m", "chaos", "rollback", "--state", str(place)], check=False, timeout=60)
            assert again.returncode == 0
            assert int((tmp_path / "good.log.pid").read_text(encoding="ascii")) == pid, "one that runs is not started again"
        finally:
            os.killpg(pid, signal.SIGKILL)


def test_a_release_that_ends_at_its_start(tmp_path, bad):
    state = State(
        url="http://127.0.0.1:1",
        path="/",
        headers={},
        good="good",
        admin_url="http://127.0.0.1:1",
        upstreams={"good": free_port(), "bad": bad},
        start=(sys.executable, "-c", "print('no licence'); raise SystemExit(3)"),
        log=str(tmp_path / "good.log"),
    )
    state.write(tmp_path / "rollout.json")
    done = CliRunner().invoke(cli, ["rollback", "--state", str(tmp_path / "rollout.json")])
    assert done.exit_code == 4
    assert "was started, and ended with status 3" in done.stderr
    assert "no licence" in done.stderr


def test_what_undoes_the_migration_comes_first_and_its_failure_ends_it(tmp_path):
    state = State(
        url="http://127.0.0.1:1",
        path="/",
        headers={},
        good="good",
        command=("touch", str(tmp_path / "code")),
        undo=((sys.executable, "-c", "raise SystemExit('no such column')"),),
    )
    state.write(tmp_path / "rollout.json")
    done = CliRunner().invoke(cli, ["rollback", "--state", str(tmp_path / "rollout.json")])
    assert done.exit_code == 4
    assert "a command that undoes the release's migration ended with status 1" in done.stderr
    assert "no such column" in done.stderr
    assert not (tmp_path / "code").exists()


def test_a_state_is_its_owners_and_an_older_one_is_read(tmp_path):
    place = tmp_path / "rollout.json"
    state = State(
        url="http://x", path="/", headers={"Host": "a"}, good="v1", undo=(("a", "b"),), start=("c",), env={"P": "secret"}
    )
    state.write(place)
    assert State.read(place) == state
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.write_text('{"url": "http://x", "path": "/", "headers": {}, "good": "v1"}', encoding="utf-8")
    assert State.read(place).start == ()
    for wrong in ("[]", "{", '{"url": 1, "what": 2}', '{"undo": 7}'):
        place.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError):
            State.read(place)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--times", "3"], "--times belongs to a drill"),
        (["--json"], "--json belongs to a drill"),
        (["--drill", "--only", "rollback.cb"], "did you mean"),
        (["--drill", "backwards"], "is not one of"),
        (["--drill", "--times", "0"], "not in the range"),
        (["--state", "/nowhere/rollout.json"], "no roll-out is recorded here"),
    ],
)
def test_what_is_said_wrongly(options, words):
    done = CliRunner().invoke(cli, ["rollback", *options])
    assert done.exit_code == 2
    assert words in done.stderr


# -- judging ------------------------------------------------------------------------------------------------------------------------------

T = 1000.0
FACTS = {
    "gate": "res.rollback",
    "family": "rollback-drill",
    "release": "a wrong CA file",
    "percent": "25",
    "bad.from": str(T),
    "bad.to": str(T + 5),
    "given": str(T + 5),
    "ended": str(T + 6),
    "exit": "0",
    "steady.after": "0.5",
    "once.write[0]": "1",
}


def op(at, status=200, kind=Kind.READ, **more):
    sample = f"{kind}[0]"
    return Operation(
        kind=kind,
        method="GET",
        path="/",
        sample=sample,
        started=T + at,
        finished=T + at + 0.01,
        status=status,
        ok=status < 300,
        **more,
    )


FAILED = tuple(op(n / 10, 503) for n in range(20))


def judged(*operations, **facts):
    history = History(experiment="rollback.ca.25", started=T, operations=operations, facts={**FACTS, **facts})
    return {one.gate: one for one in judge(history, LIMITS)}


class TestOneRollBack:
    def test_good(self):
        found = judged(*FAILED)["res.rollback"]
        assert (found.outcome, found.measured) == (Outcome.PASS, 1.0), "not before the command has said so"

    def test_nobody_saw_the_bad_release(self):
        assert judged(*(op(n / 10) for n in range(20)))["res.rollback"].outcome is Outcome.INCONCLUSIVE

    @pytest.mark.parametrize(
        ("facts", "words"),
        [
            ({"exit": "4", "output": "no edge"}, "the roll-back command ended with 4: no edge"),
            ({"steady.after": ""}, "the good release did not serve again"),
            ({"steady.after": "", "schema": "candidate", "code.only": "2 of 2"}, "rolling the code back is not enough"),
            ({"steady.after": "2.5"}, "the command said that it was done 1.5 s before it was"),
            ({"steady.after": "700", "ended": str(T + 710)}, "steady only after 700 s"),
            ({"version.after": "2.0"}, "answers still come from release '2.0'"),
        ],
    )
    def test_bad(self, facts, words):
        found = judged(*FAILED, **facts)["res.rollback"]
        assert found.outcome is Outcome.FAIL
        assert words in found.detail

    def test_reads_are_not_all(self):
        refused = op(7, 500, Kind.WRITE, unique="a")
        found = judged(*FAILED, refused)["res.rollback"]
        assert found.outcome is Outcome.FAIL
        assert "writes fail" in found.detail
        assert judged(*FAILED, refused, op(8, 201, Kind.WRITE, unique="b"))["res.rollback"].outcome is Outcome.PASS

    def test_a_write_that_is_gone_is_for_durability(self):
        write = op(-1, 201, Kind.WRITE, unique="a")
        found = judged(*FAILED, write, op(9, kind=Kind.READ_BACK, unique="a", occurrences=0))
        assert found["res.durability"].outcome is Outcome.FAIL
        assert found["res.rollback"].outcome is Outcome.PASS

    def test_other_answers_are_for_the_contract(self):
        def shape(kind):
            schema = {"type": "object", "properties": {"id": {"type": kind}}, "required": ["id"]}
            return {"200": {"count": 4, "media": ["application/json"], "headers": [], "seen": [], "schema": schema}}

        for kind, outcome in (("integer", Outcome.PASS), ("string", Outcome.FAIL)):
            sides = {
                "baseline": shape("integer"),
                "first": shape("integer"),
                "second": shape("integer"),
                "candidate": shape(kind),
            }
            found = judged(*FAILED, shapes=json.dumps({"GET /": sides}))
            assert found["rel.api_contract"].outcome is outcome
            assert found["res.rollback"].outcome is Outcome.PASS


class TestTheirDistribution:
    def times(self, *seconds):
        facts = {"gate": "res.rollback", "family": "rollback-times", "seconds": json.dumps(seconds)}
        return judge(History(experiment="rollback.times", started=T, facts=facts), LIMITS)[0]

    def test_twenty(self):
        found = self.times(*(1 + n / 10 for n in range(20)))
        assert found.outcome is Outcome.PASS
        assert "20 roll-backs, 0 of them not within 10 min: median 1.95 s (at most 2.40 s), slowest 2.90 s" in found.detail
        assert "proves 86.1% of such roll-backs" in found.detail

    @pytest.mark.parametrize("miss", [None, 601.0])
    def test_one_that_was_missed(self, miss):
        found = self.times(*(1.0 for _ in range(19)), miss)
        assert (found.outcome, found.n, found.bad) == (Outcome.FAIL, 20, 1)

    def test_the_bound_covers(self):
        """Of a thousand samples of twenty, the median of the distribution is above its bound in one of twenty at the most."""
        import random

        rng = random.Random(4)
        above = sum(upper_quantile([rng.expovariate(1.0) for _ in range(20)], 0.5) < 0.6931 for _ in range(1000))
        assert above <= 60
        assert upper_quantile([1.0, 2.0], 0.9) is None


def test_each_drill_is_done_and_a_candidates_migration_last():
    order = planned(DRILLS, 30)
    assert len(order) == 30
    assert set(order) == set(DRILLS)
    assert [one.kind for one in order[-5:]] == ["candidate"] * 5
    assert planned(DRILLS[:2], 1) == DRILLS[:2]


class TestRestore:
    FACTS = {
        "gate": "res.rollback",
        "family": "restore",
        "point": "lsn 0/1",
        "point.from": str(T),
        "point.to": str(T + 0.1),
        "decided": str(T + 2),
        "secured": str(T + 2.2),
        "ready": str(T + 3),
        "commits.before": "100",
        "commits.lost": "0",
        "commits.after": "40",
        "commits.beyond": "0",
        "missing": "[]",
        "rpo": "0.004",
        "once.write[0]": "1",
    }
    BACK = tuple(op(3 + n / 10) for n in range(1, 20))

    def judged(self, *operations, **facts):
        effect = Effect(took=True, seen="the tables are gone")
        window = Window(fault="restore.drop", scope="", injected=T + 1, healed=T + 3, effect=effect)
        history = History(
            experiment="restore.pitr.lsn",
            started=T - 9,
            windows=(window,),
            operations=operations or self.BACK,
            facts={**self.FACTS, **facts},
        )
        return {one.gate: one for one in judge(history, LIMITS)}

    def test_good(self):
        found = self.judged()["res.rollback"]
        assert found.outcome is Outcome.PASS
        assert found.measured == pytest.approx(1.11, abs=0.01), "from the decision"
        assert "RPO 0.004 s: 100 of 100 commits" in found.detail

    @pytest.mark.parametrize(
        ("facts", "words"),
        [
            ({"failed": "recovery ended", "missing": '["00000001000000000000000B"]'}, "lacks 1 WAL segments"),
            ({"commits.lost": "3"}, "3 of 100 commits that had been acknowledged before the point are gone"),
            ({"commits.beyond": "40"}, "the recovery went past it"),
            ({"unsecured": "0B was not archived"}, "the last WAL could not be secured"),
        ],
    )
    def test_bad(self, facts, words):
        found = self.judged(**facts)["res.rollback"]
        assert found.outcome is Outcome.FAIL
        assert words in found.detail

    def test_the_target_does_not_come_back(self):
        found = self.judged(*(op(3 + n / 10, 503) for n in range(1, 20)))["res.rollback"]
        assert (found.outcome, found.measured) == (Outcome.FAIL, None)

    def test_nothing_shows_where_it_stopped(self):
        assert self.judged(**{"commits.after": "0"})["res.rollback"].outcome is Outcome.INCONCLUSIVE

    def test_writes_of_before_the_point_count_and_later_ones_are_given_up(self):
        early, late = op(-1, 201, Kind.WRITE, unique="a"), op(0.5, 201, Kind.WRITE, unique="b")

        def after(a):
            shown = [op(5, kind=Kind.READ_BACK, unique=name, occurrences=times) for name, times in (("a", a), ("b", 0))]
            writing = [op(3 + n / 10, 201, Kind.WRITE, unique=f"c{n}") for n in range(5)]
            return self.judged(early, late, *self.BACK, *writing, *shown)["res.durability"]

        assert (after(1).outcome, after(1).n) == (Outcome.PASS, 1)
        assert after(0).outcome is Outcome.FAIL
        assert after(2).outcome is Outcome.FAIL


def test_the_document_shows_commands_that_are_there():
    """Each `chaos-gate rollback` line of docs/rollback.md is one that the command line takes."""
    text = (Path(__file__).parents[2] / "docs" / "rollback.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].split() for line in text.splitlines() if line.strip().startswith("chaos-gate rollback")]
    assert len(lines) >= 4
    for words in lines:
        options = [word for word in words[2:] if word.startswith("-")]
        shown = CliRunner().invoke(cli, ["rollback", *words[2:], "--help"])
        assert shown.exit_code == 0, shown.output
        assert all(option in shown.output for option in options)

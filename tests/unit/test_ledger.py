"""What is written down before it is broken is mended by whoever finds it: on a real Toxiproxy, which outlives the worker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from chaos import healing, ledger, watchdog
from chaos.cli import cli
from chaos.collector import _unbroken
from chaos.environments.local import toxiproxy
from chaos.environments.local.server import ToxiproxyServer
from chaos.errors import EvidenceUnwritable
from chaos.faults.network import NETWORK, NetworkInjector, SessionProber
from chaos.faults.toxiproxy import ProxyControl, Toxic
from chaos.ledger import NAME, Ledger, Restore
from chaos.processes import Reaper

ROOT = Path(__file__).resolve().parents[2]
FAULT = SimpleNamespace(id="planted", title="a planted fault")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Reaper("ledger-test") as reaper:
        found = ToxiproxyServer(binary=toxiproxy.ensure(), reaper=reaper, directory=tmp_path_factory.mktemp("toxiproxy"))
        found.launch()
        found.wait()
        yield found


@pytest.fixture(scope="module")
def upstream():
    """Answers nothing: what flows is not what is looked at here."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def proxy(server, upstream):
    """A shared proxy, on which somebody else has a toxic."""
    body = {"name": "database", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{upstream}", "enabled": True}
    assert healing.call("POST", f"{server.url}/proxies", body)[0] == 201
    theirs = {"name": "theirs", "type": "latency", "stream": "downstream", "attributes": {"latency": 1, "jitter": 0}}
    assert healing.call("POST", f"{server.url}/proxies/database/toxics", theirs)[0] == 200
    yield SimpleNamespace(url=server.url, control=ProxyControl(server.url, mark="ab12", ours=False))
    healing.call("DELETE", f"{server.url}/proxies/database")


def state(url):
    _, data = healing.call("GET", f"{url}/proxies/database")
    return sorted(toxic["name"] for toxic in data["toxics"]), data["enabled"]


def injector(proxy, name="blackhole", scope="new"):
    row = next(row for row in NETWORK if row.id == name)
    return NetworkInjector(row, scope, proxy.control, "database", SessionProber("", 1), lambda: 0)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_it_is_on_the_disk_before_it_is_broken(tmp_path, proxy):
    book = Ledger(tmp_path / NAME, of="ab12.gw0")
    name = book.begin(injector(proxy))
    worker, told = read(book.path)
    assert (worker["pid"], worker["start"]) == (os.getpid(), watchdog.start_time(os.getpid()))
    assert told["where"] == f"database at {proxy.url}"
    assert told["undo"] == [
        {
            "do": "restore",
            "url": proxy.url,
            "proxy": "database",
            "toxics": ["chaos-gate-ab12-bandwidth_upstream", "chaos-gate-ab12-bandwidth_downstream"],
            "enabled": True,
            "ours": False,
        }
    ]
    assert state(proxy.url) == (["theirs"], True)
    assert list(ledger.account(book.path).open) == [name]
    book.healed(name)
    assert ledger.account(book.path).sentence == "1 of 1 faults healed"


def test_what_cannot_be_written_down_is_not_broken(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceUnwritable, match="nothing may be broken"):
        Ledger(tmp_path / "file" / NAME, of="ab12.gw0")
    book = Ledger(tmp_path / NAME, of="ab12.gw0")
    os.close(book._file)
    book._file = os.open("/dev/full", os.O_WRONLY) if Path("/dev/full").exists() else -1
    with pytest.raises(EvidenceUnwritable, match="nothing may be broken"):
        book.begin(FAULT)


def test_a_torn_line_tells_of_nothing_that_was_broken(tmp_path):
    book = Ledger(tmp_path / NAME, of="ab12.gw0")
    book.healed(book.begin(FAULT))
    with book.path.open("ab") as file:
        file.write(b'{"entry": "inject", "id": "ab12.gw0.2", "fau')
    assert ledger.account(book.path).open == {}


def test_workers_share_a_ledger_and_each_heals_its_own(tmp_path):
    one, ten = (Ledger(tmp_path / NAME, of=f"ab12.gw{number}") for number in (1, 10))
    names = one.begin(FAULT), ten.begin(FAULT)
    data = one.path.read_bytes()
    assert [list(healing.unhealed(data, of)) for of in ("", "ab12.gw1", "ab12.gw10")] == [list(names), [names[0]], [names[1]]]


@pytest.mark.parametrize("enabled", [True, False])
def test_what_others_put_there_stays(proxy, enabled):
    proxy.control.enable("database", enabled)
    was = state(proxy.url)
    undo = proxy.control.undo(
        "database", [Toxic("latency", attributes={"latency": 5}), Toxic("bandwidth", attributes={"rate": 0})]
    )
    proxy.control.add("database", Toxic("latency", attributes={"latency": 5}))
    proxy.control.add("database", Toxic("bandwidth", attributes={"rate": 0}))
    proxy.control.enable("database", not enabled)
    assert len(state(proxy.url)[0]) == 3
    assert undo.heal() == ""
    assert state(proxy.url) == was
    assert undo.heal() == ""  # idempotent


def test_the_runner_heals_what_the_run_put_there_and_nothing_else(proxy):
    proxy.control.add("database", Toxic("latency", attributes={"latency": 5}))
    other = ProxyControl(proxy.url, mark="cd34", ours=False)
    other.add("database", Toxic("latency", attributes={"latency": 5}))
    proxy.control.clean("database")
    assert state(proxy.url) == (["chaos-gate-cd34-latency_downstream", "theirs"], True)


@pytest.mark.parametrize(("ours", "words"), [(False, "refused"), (True, "")])
def test_a_toxiproxy_that_is_gone_took_ours_along_and_nobody_elses(ours, words):
    gone = Restore(url="http://127.0.0.1:9", proxy="database", toxics=("x",), ours=ours)
    assert words in gone.heal(seconds=0).lower()
    assert bool(gone.heal(seconds=0)) is not ours


def test_an_api_that_does_not_answer_is_waited_for_and_told():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "no answer" in Restore(url=url, proxy="database", toxics=(), ours=True).heal(seconds=0)
        assert time.monotonic() - began < healing.CALL + 3


def test_a_connection_in_mid_flood_does_not_keep_a_toxic_from_being_removed(server, proxy):
    """The client reads nothing and the server sends without an end: every buffer is full when the toxic is to go."""

    def flood(listener):
        link, _ = listener.accept()
        with closing(link):
            try:
                while True:
                    link.sendall(b"x" * 65_536)
            except OSError:
                return

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=flood, args=(listener,), daemon=True).start()
        control = proxy.control
        body = {"name": "flooded", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{listener.getsockname()[1]}", "enabled": True}
        _, made = healing.call("POST", f"{server.url}/proxies", body)
        toxic = Toxic("latency", attributes={"latency": 300})
        undo = control.undo("flooded", [toxic])
        control.add("flooded", toxic)
        with socket.create_connection(("127.0.0.1", int(made["listen"].rpartition(":")[2]))):
            time.sleep(1.0)
            began = time.monotonic()
            assert undo.heal() == ""
            assert time.monotonic() - began < 5
        assert control.state("flooded") == ((), True)
        healing.call("DELETE", f"{server.url}/proxies/flooded")


# -- a worker that dies in mid-fault --------------------------------------------------------------------------------------------

WORKER = """
import sys, time
from pathlib import Path
from chaos.faults.network import NETWORK, NetworkInjector, SessionProber
from chaos.faults.toxiproxy import ProxyControl
from chaos.ledger import Ledger
from chaos.processes import Reaper
url, path, name, scope = sys.argv[1:]
reaper = Reaper("ab12")
ledger = Ledger(Path(path), of="ab12.gw0")
reaper.heals(ledger.path, ledger.of)
control = ProxyControl(url, mark="ab12", ours=False)
row = next(row for row in NETWORK if row.id == name)
injector = NetworkInjector(row, scope, control, "database", SessionProber("", 1), lambda: 0)
ledger.begin(injector)
injector.arm()
if row.disable:
    control.enable("database", False)
for toxic in row.toxics:
    if not injector.armed:
        control.add("database", toxic)
print("broken", flush=True)
time.sleep(600)
"""


def start_worker(proxy, path, name, scope):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, proxy.url, str(path), name, scope], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert worker.stdout.readline() == "broken\n"
    assert state(proxy.url) != (["theirs"], True)
    return worker


def clean_within(proxy, seconds):
    end = time.monotonic() + seconds
    while state(proxy.url) != (["theirs"], True) and time.monotonic() < end:
        time.sleep(0.02)
    return state(proxy.url) == (["theirs"], True)


@pytest.mark.parametrize("scope", ["pooled", "new"])
@pytest.mark.parametrize("name", [row.id for row in NETWORK])
def test_the_watchdog_heals_for_a_dead_worker(tmp_path, proxy, name, scope):
    path = tmp_path / NAME
    worker = start_worker(proxy, path, name, scope)
    worker.kill()
    worker.communicate()
    assert clean_within(proxy, 5)
    left = ledger.settle(path, by="hand", wait=5)
    assert left.sentence == "1 of 1 faults healed (1 by the watchdog)"


def test_it_heals_even_where_the_evidence_was_removed_meanwhile(tmp_path, proxy):
    (tmp_path / "evidence").mkdir()
    worker = start_worker(proxy, tmp_path / "evidence" / NAME, "blackhole", "new")
    time.sleep(0.5)  # the watchdog has opened the ledger by then
    shutil.rmtree(tmp_path / "evidence")
    worker.kill()
    worker.communicate()
    assert clean_within(proxy, 5)


# -- by hand --------------------------------------------------------------------------------------------------------------------


def heal(*arguments):
    return CliRunner().invoke(cli, ["heal", *map(str, arguments)])


@pytest.fixture
def left_behind(tmp_path, proxy):
    """What a run leaves whose watchdog was ended as well."""
    path = tmp_path / "evidence" / "20260101T000000Z-ab12" / NAME
    path.parent.mkdir(parents=True)
    worker = start_worker(proxy, path, "blackhole", "new")
    (guard,) = psutil.Process(worker.pid).children()
    yield SimpleNamespace(path=path, worker=worker, watchdog=guard.pid)
    if worker.returncode is None:
        worker.kill()
        worker.communicate()


def kill(left_behind):
    os.kill(left_behind.watchdog, signal.SIGKILL)
    left_behind.worker.kill()
    left_behind.worker.communicate()


def test_by_hand(tmp_path, proxy, left_behind, monkeypatch):
    refused = heal("--ledger", left_behind.path)
    assert refused.exit_code == 2
    assert "is still on" in refused.output
    kill(left_behind)
    assert len(state(proxy.url)[0]) == 3
    monkeypatch.chdir(tmp_path)
    done = heal()
    assert done.exit_code == 0, done.output
    assert done.output == f"healed  blackhole.new (database at {proxy.url})\n"
    assert state(proxy.url) == (["theirs"], True)
    again = heal("--ledger", left_behind.path.parent)
    assert (again.exit_code, again.output) == (0, "nothing to heal: 1 ledger looked at, no fault is open\n")


def test_by_hand_what_cannot_be_reached_is_told_and_stays_open(tmp_path, monkeypatch):
    monkeypatch.setattr(healing.restore, "__kwdefaults__", {"cut": True, "seconds": 0.0})
    monkeypatch.setattr(healing.undo, "__kwdefaults__", {"seconds": 0.0})
    path = tmp_path / NAME
    undo = [{"do": "restore", "url": "http://127.0.0.1:9", "proxy": "database", "toxics": ["x"], "enabled": True, "ours": False}]
    entry = {"entry": "inject", "id": "ab12.gw0.1", "fault": "refused.new", "where": "database", "at": 0, "undo": undo}
    path.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    failed = heal("--ledger", path)
    assert failed.exit_code == 4
    assert "NOT HEALED  refused.new (database): " in failed.output
    assert f"chaos-gate heal --ledger {path}" in failed.output
    assert list(ledger.account(path).open) == ["ab12.gw0.1"]
    assert read(path)[-1]["by"] == "hand"
    with pytest.raises(EvidenceUnwritable, match="nobody has healed"):  # and no run writes over it
        _unbroken(path, anew=True)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "there is no ledger of faults here"), ("what?\n", "this is no ledger of faults")]
)
def test_by_hand_something_else_is_a_usage_error(tmp_path, content, words):
    if content:
        (tmp_path / NAME).write_text(content, encoding="utf-8")
    shown = heal("--ledger", tmp_path)
    assert shown.exit_code == 2
    assert words in shown.output

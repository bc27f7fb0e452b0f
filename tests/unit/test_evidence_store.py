from __future__ import annotations

import dataclasses
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.errors import EvidenceUnwritable, UsageError
from chaos.evidence.redact import hide
from chaos.evidence.rows import SCHEMA_VERSION, TABLES
from chaos.evidence.store import SEGMENTS, STORE, Segment, Store, merge
from chaos.model import Connection, Effect, Finding, History, Kind, Layer, Operation, Outcome, Rung, Window
from tests.unit import evidence_sample

text = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates and NUL included
number = st.floats(allow_nan=False)
small = st.integers(-(2**62), 2**62)
operations = st.builds(
    Operation,
    kind=st.sampled_from(Kind), method=text, path=text, sample=text, started=number, finished=number, planned=number,
    status=st.none() | small, error=text, expected=text, ok=st.booleans(), unique=text, occurrences=small, retry_after=text,
    media_type=text, body=text, request_id=text, layer=st.sampled_from(Layer), lag=number, row=text, client=text,
)  # fmt: skip
connections = st.builds(
    Connection,
    id=small, opened=number, behaviour=text, closed=number, reached=st.sampled_from(Rung), tls=st.booleans(), established=st.booleans(),
    plaintext=st.booleans(), cancel=st.booleans(), sni=text, alert=text, ended_by=text, bytes_up=small, bytes_down=small,
    steps=st.lists(st.tuples(number, text), max_size=3).map(tuple),
)  # fmt: skip
windows = st.builds(
    Window, fault=text, scope=text, injected=number, healed=number, cleanup=text,
    effect=st.builds(Effect, took=st.booleans(), seen=text, count=small),
)  # fmt: skip
histories = st.builds(
    History,
    experiment=text, started=number, finished=number, control=text, exited=text,
    windows=st.lists(windows, max_size=3).map(tuple), operations=st.lists(operations, max_size=3).map(tuple),
    connections=st.lists(connections, max_size=3).map(tuple), logs=st.lists(text, max_size=3).map(tuple),
    facts=st.dictionaries(text, text, max_size=3),
)  # fmt: skip
found = st.builds(
    Finding,
    check=text, gate=text, outcome=st.sampled_from(Outcome), detail=text, experiment=text, fault=text,
    took_effect=st.none() | st.booleans(), n=small, bad=small, measured=st.none() | number, expected=text,
    examples=st.lists(text, max_size=3).map(tuple), rerun=text,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(history=histories, findings=st.lists(found, max_size=3))
def test_everything_round_trips_exactly(tmp_path_factory, history, findings):
    path = tmp_path_factory.mktemp("s") / "gw0.sqlite"
    with Segment(path) as segment:
        segment.append(history, findings)
        segment.append(history, findings)
    with Store(path) as store:
        back = list(store.recordings())
        assert back == [("gw0", history), ("gw0", history)]
        assert list(store.findings()) == [*findings, *findings]
    # equality is not enough: a flag must not come back as 1, nor an enumeration as its text
    for kept, given_one in zip(back[0][1].operations, history.operations, strict=True):
        for item in dataclasses.fields(kept):
            assert type(getattr(kept, item.name)) is type(getattr(given_one, item.name)), item.name


def test_a_nan_stays_one_and_infinity_too(tmp_path):
    one = History(
        experiment="x", started=1.0, finished=math.inf, connections=(Connection(id=1, opened=math.nan, behaviour="relay"),)
    )
    with Segment(tmp_path / "a.sqlite") as segment:
        segment.append(one)
    [back] = Store(tmp_path / "a.sqlite").histories()
    assert math.isnan(back.connections[0].opened)
    assert back.finished == math.inf


def test_histories_come_in_order_of_time_over_all_workers_and_keep_their_own_parts(tmp_path):
    store = evidence_sample.store(tmp_path, rounds=1)
    told = dict(evidence_sample.histories(rounds=1))
    assert {worker for worker, _ in store.recordings()} == set(told) == {"gw0", "gw1", "gw2", "gw3"}
    back = list(store.histories())
    # the sample's logs hold a password, which is not kept
    told = [dataclasses.replace(one, logs=tuple(map(hide, one.logs))) for _, one in evidence_sample.histories(rounds=1)]
    assert back == sorted(told, key=lambda one: one.started)
    assert {one.check for one in store.findings()} == {
        "network.refused.pooled", "network.cut.pooled", "pool.slots", "C1.reconnect", "C3.reconnect",
    }  # fmt: skip
    assert store.seconds()["pool.slots"] == pytest.approx(
        sum(h.finished - h.started for h in back if h.experiment == "pool.slots")
    )


def test_merging_twice_gives_the_same_and_keeps_the_run(tmp_path):
    store = evidence_sample.store(tmp_path, rounds=1)
    run = evidence_sample.run()
    store.save(run)
    again = merge(tmp_path)
    assert list(again.histories()) == list(store.histories())
    hidden = [dataclasses.replace(one, examples=tuple(map(hide, one.examples))) for one in run.findings]
    assert again.run() == dataclasses.replace(run, findings=tuple(hidden))
    assert list(again.run().histories()) == list(again.histories())
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE, SEGMENTS]


def test_phases_and_findings_without_a_history(tmp_path):
    lonely = Finding(check="x", gate="sec.logs", outcome=Outcome.INCONCLUSIVE, detail="\ud800")
    for worker in ("gw0", "gw1"):
        with Segment(tmp_path / SEGMENTS / f"{worker}.sqlite") as segment:
            segment.add([lonely])
            segment.add([lonely])
            segment.phase("steady", 5.0 if worker == "gw0" else 4.0)
    store = merge(tmp_path)
    assert store.phases() == (("gw1", "steady", 4.0), ("gw0", "steady", 5.0))
    assert list(store.findings()) == [lonely] * 4
    assert list(store.histories()) == []


def test_a_run_that_did_not_end_says_so(tmp_path):
    with pytest.raises(UsageError, match="recheck"):
        evidence_sample.store(tmp_path, rounds=1).run()


def test_secrets_that_are_known_never_reach_the_disk_and_all_else_is_untouched(tmp_path):
    history = History(
        experiment="x", started=0.0, logs=("Bearer s3cr3t-token end",), facts={"dsn": "postgresql://u:other@h/", "t": "s3cr3t-token"},
        operations=(Operation(kind=Kind.READ, method="GET", path="/?t=s3cr3t-token", sample="r", started=0, finished=0),),
    )  # fmt: skip
    with Segment(tmp_path / "a.sqlite", secrets=["s3cr3t-token", ""]) as segment:
        segment.append(history)
    assert b"s3cr3t-token" not in (tmp_path / "a.sqlite").read_bytes()
    [back] = Store(tmp_path / "a.sqlite").histories()
    assert back.logs == ("Bearer *** end",)
    assert back.facts["dsn"] == "postgresql://u:***@h/"
    assert back.operations[0].path == "/?t=***"


# -- killed, full, forbidden, damaged ----------------------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from chaos.evidence.store import Segment
    from tests.unit.evidence_sample import histories
    segment = Segment(Path(sys.argv[1]))
    for number, (_, history) in enumerate(list(histories(rounds=1)) * 1000):
        segment.append(history)
        print(number, flush=True)
"""


def writer(path: Path, **more) -> subprocess.Popen[str]:
    code = textwrap.dedent(WRITER)
    root = Path(__file__).parents[2]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root, text=True, **pipes, **more)


@pytest.mark.parametrize("pause", [0.0, 0.004, 0.011, 0.023])
def test_a_killed_writer_leaves_every_experiment_that_it_finished(tmp_path, pause):
    path = tmp_path / SEGMENTS / "gw0.sqlite"
    process = writer(path)
    assert process.stdout is not None
    said = -1
    for line in process.stdout:
        said = int(line)
        if said >= 3:
            break
    time.sleep(pause)
    os.kill(process.pid, signal.SIGKILL)
    said = max([said, *(int(line) for line in process.stdout)])
    process.wait()
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    expected = [one for _, one in evidence_sample.histories(rounds=1)]
    store = merge(tmp_path)
    kept = [row[0] for row in store._connection.execute("SELECT number FROM history ORDER BY number")]
    assert len(kept) in {said + 1, said + 2}  # the last one may have been committed and not said
    assert not store.damaged
    sizes = {one.experiment: len(one.operations) for one in expected}
    for one in store.histories():
        assert len(one.operations) == sizes[one.experiment]


def test_a_full_disk_is_an_error_with_a_remedy_and_loses_nothing(tmp_path):
    path = tmp_path / "gw0.sqlite"
    limit = 3_000_000  # bytes that a file of that process may have: the kernel's own refusal

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = writer(path, preexec_fn=limited)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "EvidenceUnwritable" in err
    assert "free space" in err or "writable" in err
    finished = len(out.split())
    assert finished > 1
    assert len(list(Store(path).histories())) == finished


def test_sqlite_s_own_full(tmp_path):
    with Segment(tmp_path / "a.sqlite") as segment:
        segment.append(History(experiment="kept", started=1.0))
        pages = segment._connection.execute("PRAGMA page_count").fetchone()[0]
        segment._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(EvidenceUnwritable, match="full") as caught:
            segment.append(History(experiment="lost", started=2.0, logs=("x" * 100_000,)))
        assert "free space" in caught.value.remedy
        segment._connection.execute("PRAGMA max_page_count = 100000")
        segment.append(History(experiment="next", started=3.0))  # and it goes on when there is room again
    assert [one.experiment for one in Store(tmp_path / "a.sqlite").histories()] == ["kept", "next"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EvidenceUnwritable, match="file"):
        Segment(tmp_path / "file" / "gw0.sqlite")
    (tmp_path / "directory.sqlite").mkdir()
    with pytest.raises(EvidenceUnwritable):
        Segment(tmp_path / "directory.sqlite")


def test_a_damaged_segment_does_not_take_the_others_along(tmp_path):
    evidence_sample.store(tmp_path, rounds=1)
    whole = len(list(Store(tmp_path / STORE).histories()))
    hurt = tmp_path / SEGMENTS / "gw1.sqlite"
    here = len(list(Store(hurt).histories()))
    data = bytearray(hurt.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60_000] = b"\x55" * 60_000
    hurt.write_bytes(data)
    (tmp_path / SEGMENTS / "gw7.sqlite").write_bytes(b"")  # killed before its first write
    (tmp_path / SEGMENTS / "gw8.sqlite").write_bytes(b"not a database, but long enough to look" * 99)
    store = merge(tmp_path)
    assert any(line.startswith("gw1.sqlite") for line in store.damaged)
    assert any(line.startswith("gw8.sqlite") for line in store.damaged)
    assert not any(line.startswith("gw7.sqlite") for line in store.damaged)
    workers = [worker for worker, _ in store.recordings()]
    assert whole - here <= len(workers) < whole
    assert {"gw0", "gw2", "gw3"} <= set(workers)


def test_what_is_no_store(tmp_path):
    with pytest.raises(UsageError, match="no evidence here"):
        Store(tmp_path / "none")
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(UsageError, match="no readable evidence store"):
        Store(tmp_path / "text")
    with pytest.raises(UsageError, match="no evidence here"):
        merge(tmp_path)


# -- versions ------------------------------------------------------------------------------------------------------------------------


def test_a_newer_store_is_refused_by_reader_and_writer(tmp_path):
    path = tmp_path / "a.sqlite"
    Segment(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    for open_it in (Store, Segment):
        with pytest.raises(UsageError, match="newer chaos-gate") as caught:
            open_it(path)
        assert str(path) in str(caught.value)


def test_an_older_store_gets_the_columns_it_lacks_with_their_defaults(tmp_path):
    path = tmp_path / SEGMENTS / "gw0.sqlite"
    history = next(one for _, one in evidence_sample.histories(rounds=1))
    with Segment(path) as segment:
        segment.append(history, [Finding(check="x", gate="g", outcome=Outcome.PASS, detail="d", measured=3.0)])
    with sqlite3.connect(path) as connection:
        for table, column in (("finding", "measured"), ("operation", "lag"), ("window", "effect"), ("history", "facts")):
            connection.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
    connection.close()
    [old] = Store(path).histories()  # read as it is
    assert old.facts == {}
    assert old.windows[0].effect == Window(fault="", scope="", injected=0).effect
    with Segment(path) as segment:  # and written on
        segment.append(history, [Finding(check="y", gate="g", outcome=Outcome.PASS, detail="d", measured=3.0)])
    first, second = merge(tmp_path).histories()
    assert second == history
    assert first == old
    assert [one.measured for one in Store(path).findings()] == [None, 3.0]


# What version 1 of the schema promises. A column may be added (with a default); one that goes or changes needs a new version.
PROMISED = {
    "history": "experiment TEXT, started REAL, finished REAL, control TEXT, exited TEXT, facts TEXT",
    "window": "fault TEXT, scope TEXT, injected REAL, healed REAL, effect TEXT, cleanup TEXT",
    "operation": "kind TEXT, method TEXT, path TEXT, sample TEXT, started REAL, finished REAL, planned REAL, status INTEGER, error TEXT, "
    "expected TEXT, ok INTEGER, unique TEXT, occurrences INTEGER, retry_after TEXT, media_type TEXT, body TEXT, request_id TEXT, "
    "layer TEXT, lag REAL, row TEXT, client TEXT",
    "connection": "id INTEGER, opened REAL, behaviour TEXT, closed REAL, reached INTEGER, tls INTEGER, established INTEGER, "
    "plaintext INTEGER, cancel INTEGER, sni TEXT, alert TEXT, ended_by TEXT, bytes_up INTEGER, bytes_down INTEGER, steps TEXT",
    "interval": "started REAL, seconds REAL, sample TEXT, kind TEXT, stratum TEXT, release TEXT, machine TEXT, planned INTEGER, "
    "sent INTEGER, good INTEGER, dropped INTEGER, statuses TEXT, over TEXT, latency TEXT, lag TEXT, covered REAL",
    "gauge": "at REAL, name TEXT, value REAL",
    "finding": "check TEXT, gate TEXT, outcome TEXT, detail TEXT, experiment TEXT, fault TEXT, took_effect INTEGER, n INTEGER, "
    "bad INTEGER, measured REAL, expected TEXT, examples TEXT, rerun TEXT",
}


def test_the_schema_keeps_what_its_version_promises():
    assert SCHEMA_VERSION == 1
    for table in TABLES:
        have = {f"{column.name} {column.sql}" for column in table.columns}
        assert set(PROMISED[table.name].split(", ")) <= have, f"{table.name}: a column went or changed: raise SCHEMA_VERSION"

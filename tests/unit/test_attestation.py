"""The hash chain, the policy that is fixed before the start, the signature, and the verifier that trusts nobody."""

import base64
import hashlib
import itertools
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from chaos import attestation, statistics, verify
from chaos.checks.longrun import Account
from chaos.cli import cli
from chaos.collector import Collector, Request
from chaos.errors import UsageError
from chaos.evidence import chain, policy, signing
from chaos.evidence.statement import json_schema
from chaos.evidence.store import SEGMENTS, STORE, Segment, Store, merge
from chaos.model import Connection, Finding, Kind, Outcome, Rung
from chaos.verify import canonical, numbers
from chaos.verify import long_run as counting
from chaos.verify.records import Database, Walk
from chaos.verify.result import Step
from tests.unit import attested, long_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """The pages are other tests', and take seconds to draw; and no key of whoever runs these."""
    undrawn(monkeypatch)


def undrawn(monkeypatch):
    monkeypatch.setattr("chaos.evidence.report.report", lambda *_, **__: "<p>report</p>\n")
    monkeypatch.setattr("chaos.evidence.scorecard.write", lambda *_, **__: None)
    monkeypatch.delenv(signing.KEY_ENV, raising=False)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        directory = tmp_path_factory.mktemp("honest") / "bundle"
        attested.bundle(directory)
    return directory


def key_file(directory, key, *, name="key.pem", password=None, mode=0o600):
    path = directory / name
    how = BestAvailableEncryption(password) if password else NoEncryption()
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    public = directory / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path, public


# -- the chain ----------------------------------------------------------------------------------------------------------------------


def test_the_canonical_form_is_the_documents():
    """Written out by hand from docs/attestation.md: neither side may drift from it."""
    row = (None, -7, 1.5, "é", b"\xff", 0.0, -0.0, "")
    said = b"NI-7;F" + struct.pack(">d", 1.5) + b"T2:\xc3\xa9B1:\xffF" + bytes(8) + b"F\x80" + bytes(7) + b"T0:"
    assert chain.canonical(row) == b"".join(map(canonical.encode, row)) == said
    first = hashlib.sha256(b"chaos-gate/genesis/1\nT2:abT3:gw0").hexdigest()
    assert chain.genesis("ab", "gw0") == canonical.first("ab", "gw0") == first
    link = hashlib.sha256(
        b"chaos-gate/link/1\nI1;T5:phaseF" + struct.pack(">d", 2.0) + b"T1:pT5:phaseI1;T1:xF" + struct.pack(">d", 3.0)
    )
    assert canonical.link(1, "phase", 2.0, "p", [("phase", [("x", 3.0)])]) == link.hexdigest()


def test_two_rows_never_give_the_same_bytes():
    odd = [None, 0, 1, -1, 0.0, 1.0, "", "0", "N", "I0;", "T0:", b"", b"0", "1:a", "é", 10]
    rows = [*itertools.product(odd, repeat=2), *((one,) for one in odd)]
    assert len({chain.canonical(row) for row in rows}) == len(rows)


def test_each_segment_is_a_chain_and_the_merged_store_holds_all(honest):
    report = verify.verify(honest)
    assert not report.problems, report.as_text()
    with closing(sqlite3.connect(honest / STORE)) as connection:
        links = connection.execute("SELECT segment, number, kind FROM chain ORDER BY 1, 2").fetchall()
    assert {segment for segment, _, _ in links} == {"controller", "gw0", "gw1"}
    assert [kind for segment, _, kind in links if segment == "gw1"] == ["history", "history"]
    assert ("controller", 1, "findings") in links
    assert links[-3][0] == "gw0"


def test_without_its_segments_a_bundle_verifies_and_says_so(honest, tmp_path):
    copy = copied(honest, tmp_path)
    for path in (copy / SEGMENTS).iterdir():
        path.unlink()
    (copy / SEGMENTS).rmdir()
    report = verify.verify(copy)
    assert not report.problems, report.as_text()
    assert "3 segments were not handed over" in report.as_text()


def test_a_killed_writer_leaves_a_chain_that_holds_and_goes_on(tmp_path):
    """Kill -9 in the middle of writing; then a second writer, as --resume has it."""
    (tmp_path / "policy.json").write_text("{}")
    path = tmp_path / SEGMENTS / "soak.sqlite"
    code = (
        "import sys; from pathlib import Path; from chaos.evidence.store import Segment; from tests.unit import attested\n"
        "segment = Segment(Path(sys.argv[1]))\n"
        "while True:\n segment.append(attested.outage(1000.0)); segment.phase('x', 1.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) as writer:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (path.is_file() and links(path) >= 6):
            time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    before = links(path)
    assert before >= 6
    assert walked(path) == before
    with Segment(path) as segment:
        segment.append(attested.outage(2000.0))
        segment.add([Finding(check="x", gate="sec.logs", outcome=Outcome.PASS, detail="")])
    assert walked(path) == before + 2


def links(path):
    try:
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            return connection.execute("SELECT count(*) FROM chain").fetchone()[0]
    except sqlite3.Error:
        return 0


def walked(path):
    """How many links of a segment hold, each digest made again by the verifier."""
    step = Step("chain")
    walk = Walk.of(path.name, hashlib.sha256((path.parents[1] / "policy.json").read_bytes()).hexdigest())
    with closing(Database(path, name=path.name, tables=chain.COVERED)) as database:
        for record in database.records():
            walk.take(record, step)
        walk.finish(database.counts(), step)
    assert not step.problems, step.problems
    return walk.heads[path.stem].number


def test_merging_renumbers_what_belongs_to_no_history(tmp_path):
    lone = Finding(check="x", gate="sec.logs", outcome=Outcome.PASS, detail="y")
    for worker in ("gw0", "gw1"):
        with Segment(tmp_path / SEGMENTS / f"{worker}.sqlite") as segment:
            segment.add([lone])
            segment.add([lone, lone])
            segment.append(attested.outage(1000.0))
    with merge(tmp_path) as store:
        assert len(list(store.findings())) == 6
        assert [one[1:] for one in store.attested().segments] != []
        assert store.attested().heard == {"x": 6, "network.refused.pooled": 2}


def test_linking_costs_little(tmp_path, monkeypatch):
    """A link takes less than the writing it belongs to: 100,000 operations are a second or two of CPU."""
    one = attested.asked(Kind.READ, 1000.0)
    history = replace(attested.outage(1000.0), operations=(one,) * 10_000)
    spent, real = [], chain.Chain.link

    def timed(*given):
        begun = time.process_time()
        real(*given)
        spent.append(time.process_time() - begun)

    monkeypatch.setattr(chain.Chain, "link", timed)
    with Segment(tmp_path / SEGMENTS / "gw0.sqlite") as segment:
        begun = time.process_time()
        segment.append(history)
        whole = time.process_time() - begun
    assert sum(spent) < max(whole / 2, 1.0), f"{sum(spent):.2f} of {whole:.2f} s"


# -- the policy ---------------------------------------------------------------------------------------------------------------------


def test_the_policy_is_fixed_before_the_first_record(honest):
    fixed = json.loads((honest / "policy.json").read_text())
    assert len(fixed["gates"]) > 30
    assert fixed["due"]
    assert fixed["experiments"][0] == {"experiment": "network.refused.pooled", "times": 1}
    assert {gate["id"]: gate["limit"] for gate in fixed["gates"]}["rel.p95"] == 0.05


def test_the_configuration_in_it_holds_no_secret():
    given = {
        "target": {
            "env": {"DATABASE_URL": "{database_url}", "KEY": "s3cr3t", "MIXED": "a{port}b"},
            "headers": {"Authorization": "Bearer {token}"},
            "prepare": [
                {"form": {"user": "u", "password": "hunter2"}, "json": {"a": {"b": ["deep"]}}, "path": "/login?token=hunter2"}
            ],
            "url": "https://user:hunter2@example.test/",
        }
    }
    kept = json.dumps(policy.hidden(given))
    assert not [word for word in ("s3cr3t", "hunter2", "deep", "Bearer") if word in kept]
    assert policy.hidden(given)["target"]["env"] == {"DATABASE_URL": "{database_url}", "KEY": "***", "MIXED": "***{port}***"}


def test_a_resumed_run_goes_on_under_the_policy_that_it_began_with(tmp_path):
    directory = tmp_path / "soak"
    config = tmp_path / "chaos.toml"
    reference = '[target]\nname = "x"\nstart = ["x", "{port}"]\nlive = "/"\nready = "/"\n[[target.read]]\npath = "/"\n'
    config.write_text(reference)
    before = started(directory, config)
    assert started(directory, config, resume=True) == before
    config.write_text(reference + '\n[gates]\n"rel.p95" = 500\n')
    with pytest.raises(UsageError, match="began under another policy") as told:
        started(directory, config, resume=True)
    assert "overrides" in str(told.value)
    assert (directory / "policy.json").read_bytes() == before


def started(directory, config, *, resume=False):
    collector = Collector.prepare(Request(given=str(config), evidence=str(directory), seed=1, resume=resume), screen=None)
    try:
        collector.fix()
    finally:
        collector.run_dir.rmdir()
    return (directory / "policy.json").read_bytes()


# -- signing ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
    ],
)
def test_a_signed_statement_verifies_by_ours_and_by_theirs(honest, tmp_path, make):
    copy = copied(honest, tmp_path)
    private, public = key_file(tmp_path, make())
    other = key_file(tmp_path, make(), name="other.pem")[1]
    said = CliRunner().invoke(cli, ["attest", str(copy), "--key", str(private)])
    assert said.exit_code == 0, said.output
    report = verify.verify(copy, public)
    assert not report.problems
    assert "which was given" in report.origin
    assert "which nobody checked" in verify.verify(copy).origin
    assert [one.where for one in verify.verify(copy, other).problems] == ["attestation.json, signatures"]
    loaded = load_pem_public_key(public.read_bytes())
    theirs = SSlibKey.from_crypto(loaded, keyid=signing.keyid(loaded))
    envelope = Envelope.from_dict(json.loads((copy / "attestation.json").read_text()))
    assert envelope.verify([theirs], 1)


def test_keys_that_must_not_be_used(tmp_path, monkeypatch):
    good = ed25519.Ed25519PrivateKey.generate()
    shown, _ = key_file(tmp_path, good, name="shown.pem", mode=0o644)
    big, _ = key_file(tmp_path, rsa.generate_private_key(public_exponent=65537, key_size=2048), name="rsa.pem")
    locked, _ = key_file(tmp_path, good, name="locked.pem", password=b"words of it")
    curve, _ = key_file(tmp_path, ec.generate_private_key(ec.SECP256K1()), name="curve.pem")
    junk = tmp_path / "junk.pem"
    junk.touch(mode=0o600)
    for path, what in ((shown, "others may read"), (big, "neither Ed25519"), (locked, "is encrypted"), (curve, "cannot sign"),
                       (junk, "no private key"), (tmp_path / "none", "cannot be read")):  # fmt: skip
        with pytest.raises(UsageError, match=what):
            signing.signer(path)
    monkeypatch.setenv(signing.PASSWORD_ENV, "words of it")
    assert signing.signer(locked).public_key.scheme == "ed25519"
    monkeypatch.setenv(signing.PASSWORD_ENV, "other words")
    with pytest.raises(UsageError, match="no private key in PEM that can be opened"):
        signing.signer(locked)
    monkeypatch.setenv(signing.KEY_ENV, str(shown))
    with pytest.raises(UsageError, match="others may read"):  # before anything is started
        Collector.prepare(Request(evidence=str(tmp_path / "e")), screen=None)
    assert not (tmp_path / "e").exists()


def test_a_key_is_asked_for_where_there_is_none(honest, tmp_path):
    public = key_file(tmp_path, ed25519.Ed25519PrivateKey.generate())[1]
    report = verify.verify(honest, public)
    assert [one.where for one in report.problems] == ["attestation.json, signatures"]
    assert report.origin == "unsigned: integrity only, no origin"
    said = CliRunner().invoke(cli, ["verify", str(honest), "--key", str(tmp_path / "key.pem")])
    assert said.exit_code == 2
    assert "no public key in PEM" in said.output


# -- the statement ------------------------------------------------------------------------------------------------------------------


def test_the_statement_is_what_the_schema_says(honest):
    published = (ROOT / "docs" / "attestation.schema.json").read_text(encoding="utf-8")
    assert published == json_schema(), "run: python -m chaos.evidence.statement docs/attestation.schema.json"
    said = json.loads(base64.b64decode(json.loads((honest / "attestation.json").read_text())["payload"]))
    jsonschema.validate(said, json.loads(published))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert {one["name"] for one in said["subject"]} == {
        "evidence.json", "evidence.sqlite", "junit.xml", "policy.json", "report.html",
        "segments/controller.sqlite", "segments/gw0.sqlite", "segments/gw1.sqlite",
    }  # fmt: skip
    ours = said["predicate"]["chaosgate_run"]
    assert ours["coverage"] == {"planned": 3, "heard": 3, "seconds": 0.0, "covered": 0.0}
    assert ours["controls"] == {"healthy": 3, "sick": 0, "faults": 2, "took_effect": 2}
    gate = next(one for one in ours["gates"] if one["id"] == "sec.verify_full")
    assert (gate["k"], gate["n"], gate["verdict"]) == (0, 14, "pass")


def test_the_gate_is_settled_by_the_run_itself(honest):
    evidence = json.loads((honest / "evidence.json").read_text())
    gate = next(one for one in evidence["gates"] if one["id"] == "rep.attestation")
    assert gate["verdict"] == "pass"
    check = next(one for one in evidence["checks"] if one["gate"] == "rep.attestation")
    assert "a chain of" in check["detail"]
    assert "policy fixed before the start" in check["detail"]


def test_a_broken_chain_fails_the_gate(tmp_path, monkeypatch):
    real = attestation.examine

    def meddled(directory, results):
        with closing(sqlite3.connect(directory / SEGMENTS / "gw0.sqlite")) as connection:
            connection.execute("UPDATE operation SET status = status + 1 WHERE rowid = 3")
            connection.commit()
        return real(directory, results)

    monkeypatch.setattr(attestation, "examine", meddled)
    run = attested.bundle(tmp_path / "b")
    gate = next(one for one in run.gates if one.id == "rep.attestation")
    assert gate.outcome is Outcome.FAIL
    assert "digest" in gate.reason
    assert run.verdict.value == "NO-GO"


def test_two_sides_that_count_differently_prove_nothing(tmp_path, monkeypatch):
    real = statistics.upper
    monkeypatch.setattr("chaos.gates.upper", lambda bad, n, **more: real(bad, n, **more) * 0.9)
    run = attested.bundle(tmp_path / "b")
    gate = next(one for one in run.gates if one.id == "rep.attestation")
    assert gate.outcome is Outcome.INCONCLUSIVE
    assert "recomputed bound" in gate.reason


def test_that_evidence_can_be_checked_proves_nothing_of_a_target(tmp_path):
    """A run that looked at nothing is INCONCLUSIVE, though its evidence verifies."""
    run = attested.bundle(tmp_path / "b", recorded=[], only=("network.refused.pooled",), extra=())
    assert run.verdict.value == "INCONCLUSIVE"


# -- who forges everything ----------------------------------------------------------------------------------------------------------


def forged(monkeypatch, tmp_path, change, **more):
    """A bundle whose rows are `change`d while its findings are those of the rows before; chain and statement are made anew."""
    monkeypatch.setattr(attestation, "examine", attested.believed)
    honest_ones = attested.histories()
    recorded = change(honest_ones)
    attested.bundle(tmp_path / "b", recorded=recorded, judged=honest_ones, **more)
    return verify.verify(tmp_path / "b")


def first(histories, change):
    return [change(histories[0]), *histories[1:]]


FORGERIES = {
    "a 4xx that was a 5xx": (lambda all_: first(all_, lambda one: later(one, Kind.INVALID, status=500)), "invalid.network.refused.pooled, bad"),
    "a write that was lost": (lambda all_: first(all_, lambda one: attested.changed(one, Kind.READ_BACK, occurrences=0)), "writes.network.refused.pooled, bad"),
    "a target that never came back": (lambda all_: first(all_, never), "finding network.refused.pooled, bad"),
    "an answer that took too long": (lambda all_: first(all_, lambda one: later(one, Kind.READ, finished=one.started + 30.0)), "network.refused.pooled, bad"),
    "a target that ended": (lambda all_: first(all_, lambda one: replace(one, exited="signal 9")), "network.refused.pooled, bad"),
    "a fault that never was": (lambda all_: first(all_, idle), "took_effect"),
    "a sick control": (lambda all_: first(all_, lambda one: replace(one, control="it failed before")), "control"),
    "load that failed": (lambda all_: [all_[0], failing(all_[1]), all_[2]], "availability.steady, bad"),
    "slow reads": (lambda all_: [all_[0], slow(all_[1]), all_[2]], "p95.steady, bad"),
    "handshakes that failed": (lambda all_: [all_[0], handshakes(all_[1]), all_[2]], "handshakes.steady, bad"),
    "a session in plaintext": (lambda all_: [all_[0], replace(all_[1], facts={**all_[1].facts, "log.plain": "2"}), all_[2]], "sessions.steady"),
    "a password that was given away": (lambda all_: [*all_[:2], told(all_[2])], "C1.reconnect, outcome"),
    "an error page instead of a problem": (lambda all_: first(all_, html), "errors.network.refused.pooled, bad"),
}  # fmt: skip


def later(history, kind, **values):
    operations = list(history.operations)
    index = [number for number, one in enumerate(operations) if one.kind is kind][15]
    operations[index] = replace(operations[index], **values)
    return replace(history, operations=tuple(operations))


def never(history):
    healed = history.windows[0].healed
    spoiled = (
        replace(one, ok=False, status=503) if one.started > healed and one.kind in {Kind.READ, Kind.WRITE} else one
        for one in history.operations
    )
    return replace(history, operations=tuple(spoiled))


def idle(history):
    [window] = history.windows
    return replace(history, windows=(replace(window, effect=replace(window.effect, took=False)),))


def html(history):
    broken = (
        replace(one, body="<h1>Oops</h1>", media_type="text/html") if one.status == 503 else one for one in history.operations
    )
    return replace(history, operations=tuple(broken))


def failing(history):
    return replace(history, operations=tuple(replace(one, ok=False, status=500) for one in history.operations))


def slow(history):
    return replace(history, operations=tuple(replace(one, finished=one.finished + 1.0) for one in history.operations))


def handshakes(history):
    broken = Connection(id=99, opened=history.started, behaviour="relay", reached=Rung.CLIENT_HELLO, alert="bad certificate")
    return replace(history, connections=(*history.connections, broken))


def told(history):
    return replace(history, connections=(replace(history.connections[0], reached=Rung.PASSWORD), *history.connections[1:]))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_verdict_that_does_not_follow_from_the_rows_is_caught(name, monkeypatch, tmp_path):
    change, place = FORGERIES[name]
    report = forged(monkeypatch, tmp_path, change)
    by_step = {step.name: step.problems for step in report.steps}
    assert not by_step["chain"]
    assert not by_step["files"]
    assert any(place in f"{one.where}: {one.what}" for one in by_step["rows"]), report.as_text()


def test_an_experiment_that_was_left_out_is_missed(monkeypatch, tmp_path):
    monkeypatch.setattr(attestation, "examine", attested.believed)
    attested.bundle(tmp_path / "b", recorded=attested.histories()[:2])
    report = verify.verify(tmp_path / "b")
    assert [one.what for one in report.problems] == ["C1.reconnect was planned 1 times, and is there 0 times"]


def test_a_gate_that_is_better_than_its_findings_is_caught(monkeypatch, tmp_path):
    """The forger's run judges by other rules than those that it wrote down."""
    from chaos import collector

    real = collector.judge
    monkeypatch.setattr(attestation, "examine", attested.believed)
    monkeypatch.setattr(
        collector, "judge", lambda *given, **more: tuple(
            replace(one, outcome=Outcome.PASS) if one.id == "rel.availability" else one for one in real(*given, **more)
        )
    )  # fmt: skip
    attested.bundle(tmp_path / "b")
    places = [one.where for one in verify.verify(tmp_path / "b").problems]
    assert any("evidence.json, gates[11].verdict" in place for place in places), places
    assert any("chaosgate_run" in place for place in places)


def test_what_nobody_can_catch_without_a_signature(monkeypatch, tmp_path):
    """Rows and findings that agree, made up as a whole: docs/attestation.md says so. With a known key it has no signature."""
    monkeypatch.setattr(attestation, "examine", attested.believed)
    attested.bundle(tmp_path / "b")
    assert not verify.verify(tmp_path / "b").problems
    public = key_file(tmp_path, ed25519.Ed25519PrivateKey.generate())[1]
    assert verify.verify(tmp_path / "b", public).problems


# -- the command --------------------------------------------------------------------------------------------------------------------


def copied(bundle, place):
    copy = place / "copy"
    for path in sorted(bundle.rglob("*")):
        if path.is_file():
            (copy / path.relative_to(bundle)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(bundle)).write_bytes(path.read_bytes())
    return copy


def test_verify_says_what_it_did_and_ends_with_the_right_code(honest, tmp_path):
    said = CliRunner().invoke(cli, ["verify", str(honest)])
    assert said.exit_code == 0, said.output
    assert "verifies: unsigned: integrity only, no origin" in said.output
    assert "recomputed from the raw rows: " in said.output
    assert "recomputed from the findings of the checks, as they were found: rep.attestation" in said.output
    copy = copied(honest, tmp_path)
    with closing(sqlite3.connect(copy / STORE)) as connection:
        connection.execute("UPDATE operation SET status = 201 WHERE rowid = 7")
        connection.commit()
    said = CliRunner().invoke(cli, ["verify", str(copy), "--json"])
    assert said.exit_code == 1
    told = json.loads(said.output)
    assert told["verifies"] is False
    assert any("column status" in one["what"] for one in told["problems"])
    assert CliRunner().invoke(cli, ["verify", str(tmp_path / "nothing")]).exit_code == 2
    (tmp_path / "empty").mkdir()
    said = CliRunner().invoke(cli, ["verify", str(tmp_path / "empty")])
    assert said.exit_code == 1
    assert "attestation.json: is not there" in said.output


def test_verifying_writes_nothing(honest):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in honest.rglob("*")}
    verify.verify(honest)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in honest.rglob("*")} == before


def test_recheck_and_report_keep_working_and_report_seals_again(honest, tmp_path):
    copy = copied(honest, tmp_path)
    again = CliRunner().invoke(cli, ["recheck", str(copy)])
    assert "every gate as recorded" in again.output
    assert not verify.verify(copy).problems
    assert CliRunner().invoke(cli, ["report", str(copy)]).exit_code == 0
    assert not verify.verify(copy).problems


def test_evidence_of_before_cannot_be_attested(tmp_path):
    with Segment(tmp_path / SEGMENTS / "gw0.sqlite") as segment:
        segment.append(attested.outage(1000.0))
    merge(tmp_path).close()
    said = CliRunner().invoke(cli, ["attest", str(tmp_path)])
    assert said.exit_code == 2
    assert "no policy.json" in said.output


# -- numbers ------------------------------------------------------------------------------------------------------------------------


def test_both_sides_bound_alike():
    for bad, n in [(0, 1), (0, 59), (1, 1), (3, 59), (59, 59), (1, 2995), (17, 100_000), (2.5, 731.4)]:
        assert numbers.above(bad, n) == pytest.approx(statistics.upper(bad, n), rel=1e-9)
        assert numbers.below(bad, n) == pytest.approx(statistics.lower(bad, n), rel=1e-9)
    blocks = [(0, 40), (3, 38), (0, 41), (12, 44), (0, 9)]
    plain = [(block, turn < bad) for block, (bad, n) in enumerate(blocks) for turn in range(n)]
    assert numbers.dependence(plain) == pytest.approx(statistics.design_effect(blocks), rel=1e-12)


def test_the_verifier_needs_nothing_of_ours():
    """Neither by import nor late: only chaos itself, whose one line is the version."""
    code = "import sys; from pathlib import Path; from chaos import verify; verify.verify(Path(sys.argv[1])); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    ours = {name for name in done.stdout.split() if name.split(".")[0] == "chaos"}
    assert {name.split(".")[1] for name in ours if "." in name} == {"verify"}


def test_the_store_tells_what_ended_a_run(tmp_path):
    with Segment(tmp_path / SEGMENTS / "controller.sqlite") as segment:
        segment.phase("ended: interrupted", 1.0)
        segment.phase("concluded", 2.0)
    merge(tmp_path).close()
    with Store(tmp_path / STORE) as store:
        assert store.ended() == ["interrupted"]


# -- long runs ----------------------------------------------------------------------------------------------------------------------


LASTING = {"hours": 54.0, "every": 20}  # minutes that one record stands for
SOAKS = {
    "healthy": long_run.Service(**LASTING),
    "a burst": long_run.Service(failing=lambda number: 200 if 1000 <= number < 1100 else 0, **LASTING),
    "nobody looked for an hour, and the sender was late for another": long_run.Service(
        there=lambda number: not 500 <= number < 560, lag=lambda number: 0.05 if 1000 <= number < 1100 else 0.0004, **LASTING
    ),
    "a write was lost, a host was let in, reads got slow, handshakes failed": long_run.Service(
        lost=lambda number: int(number == 2000),
        let_in=lambda number: int(number == 900),
        slow=lambda number: 40 if number > 3000 else 2,
        handshakes=lambda number: (3, int(number % 500 == 0)),
        **LASTING,
    ),
    "too short": long_run.Service(hours=3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", SOAKS)
def test_a_soak_is_counted_alike_by_both_sides(name, tmp_path):
    """Rates, bounds, the colour of each hour and the streak, from the minutes as they are on disk."""
    account = Account(long_run.LIMITS)
    with Segment(tmp_path / SEGMENTS / "soak.sqlite") as segment:
        for minute in SOAKS[name].minutes():
            account.feed(minute)
            segment.append(minute)
        segment.add(account.findings())
    mine, findings = recount(tmp_path / SEGMENTS / "soak.sqlite")
    step = Step("rows")
    made_again = counting.compare(mine, findings, POLICY, step)
    assert not step.problems
    assert len(made_again) == len(
        {one.check for one in account.findings() if not one.check.startswith(("soak.odd", "soak.leaks"))}
    )
    assert mine.colours(POLICY) == [(one.colour.value, pytest.approx(one.unseen)) for one in account.hours()]
    assert mine.longest(POLICY) == account.streak().longest


def test_a_soak_whose_findings_are_better_than_its_minutes_is_caught(tmp_path):
    honest, claimed = Account(long_run.LIMITS), Account(long_run.LIMITS)
    with Segment(tmp_path / SEGMENTS / "soak.sqlite") as segment:
        for minute, better in zip(SOAKS["a burst"].minutes(), SOAKS["healthy"].minutes(), strict=True):
            honest.feed(minute)
            claimed.feed(better)
            segment.append(minute)
        segment.add(claimed.findings())
    step = Step("rows")
    counting.compare(*recount(tmp_path / SEGMENTS / "soak.sqlite"), POLICY, step)
    wrong = {one.where.split("finding ")[1] for one in step.problems}
    assert {"soak.availability, bad", "soak.budget, bad", "soak.streak, measured"} <= wrong


POLICY = {
    "limits": {"recovery": long_run.LIMITS.recovery, "seconds": dict(long_run.LIMITS.seconds)},
    "gates": [{"id": gate.id, "limit": gate.limit, "rule": gate.rule} for gate in long_run.GATES.values()],
}


def recount(path):
    run, findings = counting.LongRun(), []
    with closing(Database(path, name=path.name, tables=chain.COVERED)) as database:
        for record in database.records():
            run.take(record, POLICY)
            findings += record.tables.get("finding", ())
    return run, findings

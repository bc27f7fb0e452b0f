"""The zoo says what is wrong with each certificate; OpenSSL, asked in memory, has to agree."""

import ssl
import stat
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chaos.certs import Authority, Zoo
from chaos.errors import ConfigError, EvidenceUnwritable, UsageError

ROOT = Path(__file__).parents[2]
ZOO = Zoo.load()
SERVER = [entry for entry in ZOO.entries if entry.role == "server"]
DAY = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("certificates"))


def certificates(identity):
    return x509.load_pem_x509_certificates(identity.chain_file.read_bytes())


def shake_hands(authority, identity, host, *, crl=None, ca=None, client_identity=None):
    """A whole handshake in memory, with an OpenSSL client that verifies fully; '' when both accept, else why not.

    With `client_identity` the server asks for a certificate, and gets that.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT:@SECLEVEL=0")
    server.load_cert_chain(identity.chain_file, identity.key_file)
    client = ssl.create_default_context(cafile=ca or authority.ca_file)
    client.set_ciphers("DEFAULT:@SECLEVEL=2")
    if client_identity:
        client.load_cert_chain(client_identity.chain_file, client_identity.key_file)
        server.load_verify_locations(authority.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
    if crl:
        client.load_verify_locations(crl)
        client.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    done = set()
    for _ in range(12):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return str(error)
        if len(done) == 2:
            return ""
    raise AssertionError("no end")


# -- what the zoo says ------------------------------------------------------------------------------------------------------------


def test_every_row_that_is_a_matter_of_certificates_alone_has_an_entry():
    elsewhere = {"C24", "C25", "C26"}  # a client's configuration: see Authority.crl
    wanted = {f"C{n}" for n in range(1, 28)} - elsewhere | {
        "R2",
        "R3",
        "R5",
        "M1",
        "M2",
        "M3",
        "M4",
        "M6",
        "sec.cert_expiry",
        "accept",
    }
    assert {entry.row for entry in ZOO.entries} == wanted


def test_every_reject_case_has_a_pair_that_must_connect():
    for entry in ZOO.entries:
        pair = ZOO.entry(entry.pair)
        assert pair.must == "connect"
        assert entry.must == "connect" or entry.role in {pair.role, "reload"}
        assert entry.why


def test_dates_are_a_day_away_from_now():
    for item in (*ZOO.entries, *(issuer for issuer in ZOO.issuers if issuer.days)):
        assert all(abs(day) >= 1 for day in item.days)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[entry]]\nname = 'a'\n", 1, "no row and no must and no why"),
        ("\n[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\nisuer='ca'\n", 7, "did you mean 'issuer'"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='maybe'\nwhy='x'\n", 4, "reject, connect, policy"),
        ("[[entry]]\nname='a'\nrow=1\nmust='reject'\nwhy='x'\n", 3, "type str"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\ndays=[1]\n", 6, "two numbers"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\ndays=[2,1]\n", 6, "two numbers"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\nnames=['localhost']\n", 6, "dns:"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\neku=['mail']\n", 6, "'server' and 'client'"),
        ("[[entry]]\nname='../a'\nrow='C1'\nmust='reject'\nwhy='x'\n", 2, "cannot be a name"),
        ("[[entry]]\nname='a'\nrow='C1'\nmust='reject'\nwhy='x'\nissuer='nobody'\n", 6, "not there"),
        ("[[issuer]]\nname='a'\n[[issuer]]\nname='a'\n", 4, "a second"),
        ("[[issuer]]\nname='a'\nparent='b'\n[[issuer]]\nname='b'\nparent='a'\n", 3, "below itself"),
        ("[[entri]]\nname='a'\n", 1, "did you mean 'entry'"),
        ("[entry]\nname='a'\n", 1, "[[entry]]"),
        ("[[entry]\n", 1, "not valid TOML"),
    ],
)
def test_a_wrong_zoo_names_file_and_line(tmp_path, text, line, words):
    path = tmp_path / "zoo.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Zoo.load(path)
    assert caught.value.where == f"{path}:{line}"
    assert words in caught.value.what


def test_a_missing_zoo_and_a_missing_name_say_so(tmp_path):
    with pytest.raises(ConfigError):
        Zoo.load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="did you mean 'expired'"):
        ZOO.entry("expird")


# -- what is issued -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", SERVER, ids=[entry.name for entry in SERVER])
def test_openssl_agrees(authority, entry):
    why = shake_hands(authority, authority.issue(entry), authority.host(entry))
    must = "connect" if entry.revoked else entry.must  # revoked only for those who have the list
    assert must in {"policy", "reject" if why else "connect"}, why


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expired", "has expired"),
        ("not-yet-valid", "not yet valid"),
        ("wrong-host", "Hostname mismatch"),
        ("untrusted-ca", "unable to get local issuer|self.signed"),
        ("twin-ca", "signature failure|unable to get local issuer"),
        ("self-signed", "self.signed"),
        ("missing-intermediate", "unable to get local issuer"),
        ("intermediate-expired", "has expired"),
        ("issuer-not-a-ca", "invalid CA certificate"),
        ("path-too-long", "path length"),
        ("constraint-not-permitted", "permitted subtree"),
        ("constraint-excluded", "excluded subtree"),
        ("client-use-only", "unsuitable certificate purpose"),
        ("rsa-1024", "(?i)ee certificate key too weak|ee_key_too_small"),
        ("sha1", "digest algorithm too weak"),
    ],
)
def test_it_is_refused_for_the_defect_it_was_given(authority, name, words):
    with pytest.raises(AssertionError, match=words):
        assert not shake_hands(authority, authority.issue(name), "localhost")


def test_revoked_is_refused_by_those_who_have_the_list(authority):
    crl, stale = authority.crl(), authority.crl(stale=True)
    assert "revoked" in shake_hands(authority, authority.issue("revoked"), "localhost", crl=crl)
    assert not shake_hands(authority, authority.issue("valid"), "localhost", crl=crl)
    assert "CRL has expired" in shake_hands(authority, authority.issue("valid"), "localhost", crl=stale)


def test_a_rotated_authority_is_trusted_with_the_new_bundle(authority):
    rotated = authority.issue("rotated-ca")
    both = authority.bundle("ca", "next-ca")
    assert shake_hands(authority, rotated, "localhost")
    assert not shake_hands(authority, rotated, "localhost", ca=both)
    assert not shake_hands(authority, rotated, "localhost", ca=rotated.ca_file)
    assert not shake_hands(authority, authority.issue("valid"), "localhost", ca=both)


def test_rotated_leaf_differs_in_key_and_certificate(authority):
    old, new = authority.issue("valid"), authority.issue("rotated-leaf")
    assert old.fingerprint != new.fingerprint
    assert old.key_file.read_bytes() != new.key_file.read_bytes()
    assert old.ca_file == new.ca_file == authority.ca_file


@pytest.mark.parametrize("days", [29, 30, 31])
def test_days_left(authority, days):
    left = (authority.issue(f"days-left-{days}").not_after - time.time()) / DAY
    assert days - 0.1 < left <= days


def test_files(authority):
    identity = authority.issue("via-intermediate")
    leaf, above = certificates(identity)
    assert identity.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    assert leaf.issuer == above.subject
    assert stat.S_IMODE(identity.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.issue("client-key-readable").key_file.stat().st_mode) == 0o644
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    mismatch, context = authority.issue("key-mismatch"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ssl.SSLError, match="MISMATCH"):
        context.load_cert_chain(mismatch.chain_file, mismatch.key_file)
    for key in (authority.directory / "issuers").glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_reversed_chain_really_is_one(authority):
    leaf, *above = certificates(authority.issue("chain-reversed"))
    assert len(above) == 3
    assert above[-1].subject == leaf.issuer
    assert above[0].subject == above[0].issuer
    assert all(upper.subject == lower.issuer for upper, lower in pairwise(above))


def test_client_certificates_name_the_user(tmp_path):
    authority = Authority.create(tmp_path, user="orders")
    (leaf,) = certificates(authority.issue("client"))
    assert [name.value for name in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)] == ["orders"]
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize("entry", [entry for entry in ZOO.entries if entry.role == "client"], ids=lambda entry: entry.name)
def test_servers_judge_clients(authority, entry):
    """The common name is PostgreSQL's business and the key's mode libpq's; the rest is OpenSSL's."""
    why = shake_hands(authority, authority.issue("valid"), "localhost", client_identity=authority.issue(entry))
    assert bool(why) is (entry.must == "reject" and entry.row not in {"M4", "M6"}), why


def test_other_hosts(tmp_path):
    authority = Authority.create(tmp_path, hosts=("db.example.test", "10.1.2.3"))
    assert not shake_hands(authority, authority.issue("valid"), "db.example.test")
    assert not shake_hands(authority, authority.issue("valid"), "10.1.2.3")
    assert shake_hands(authority, authority.issue("valid"), "localhost")
    assert authority.host("wildcard-two-labels") == "a.b.db.db.example.test"


# -- the directory --------------------------------------------------------------------------------------------------------------


def test_what_is_there_is_used_again(tmp_path):
    first = Authority.create(tmp_path)
    before = {entry.name: first.issue(entry).fingerprint for entry in ZOO.entries}
    second = Authority.create(tmp_path)
    assert {entry.name: second.issue(entry).fingerprint for entry in ZOO.entries} == before
    assert first.issue("valid") is first.issue("valid")


def test_what_was_made_otherwise_is_made_again(tmp_path):
    first = Authority.create(tmp_path).issue("valid")
    second = Authority.create(tmp_path, hosts=("localhost",)).issue("valid")
    assert first.fingerprint != second.fingerprint
    third = Authority.create(tmp_path)
    changed = replace(ZOO.entry("valid"), days=(-2.0, 20.0))
    assert third.issue("valid").fingerprint != third.issue(changed).fingerprint
    assert third.issue(changed).not_after - time.time() < 21 * DAY


def test_dates_that_have_moved_are_made_again(tmp_path, monkeypatch):
    before = Authority.create(tmp_path).issue("days-left-30")
    ordinary = Authority.create(tmp_path).issue("valid")
    monkeypatch.setattr("chaos.certs.build.days_from_now", _tomorrow)
    assert Authority.create(tmp_path).issue("days-left-30").fingerprint != before.fingerprint
    assert Authority.create(tmp_path).issue("valid").fingerprint == ordinary.fingerprint


def _tomorrow(days):
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days + 1)


def test_several_processes_in_one_directory(tmp_path):
    code = (
        "import sys; from pathlib import Path; from chaos.certs import Authority\n"
        "a = Authority.create(Path(sys.argv[1]))\n"
        "print([a.issue(n).fingerprint for n in ('valid', 'via-intermediate', 'expired')], a.ca_file.read_text())"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1
    assert not [process.returncode for process in running if process.returncode]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EvidenceUnwritable):
        Authority.create(tmp_path / "file" / "below")


def test_the_command_makes_everything(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "chaos.certs", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert all(entry.name in done.stdout for entry in ZOO.entries)
    assert len(list((tmp_path / "identities").glob("*.key"))) == len(ZOO.entries)
    assert {"crl.pem", "crl-stale.pem", "ca.pem"} <= {path.name for path in tmp_path.iterdir()}


def test_importing_the_zoo_is_cheap():
    code = "import sys, chaos.certs; chaos.certs.Zoo.load(); sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_nothing_private_is_committed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    assert not [name for name in listed if name.endswith((".key", ".pem", ".crt", ".p12"))]

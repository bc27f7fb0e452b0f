"""The exporter of certificates, and the alerting rules that read it; promtool is the real one."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.certs import Authority, Entry, Issuer, Zoo
from chaos.cli import cli
from chaos.environments.local import go_module
from chaos.environments.local import prometheus as tools
from chaos.errors import PartMissing
from chaos.export import certificates
from chaos.faults.wire import Impostor, Refuse, Wire

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    zoo = Zoo.load()
    soon = Issuer(name="soon", parent="ca", days=(-60.0, 29.0))
    return Authority.create(tmp_path_factory.mktemp("certs"), zoo=replace(zoo, issuers=(*zoo.issuers, soon)))


@pytest.fixture
def server(authority):
    """`server(name)`: a wire that presents that certificate; its address."""
    wires = []

    def serve(identity):
        wire = Wire(("127.0.0.1", 9))
        wires.append(wire)
        port = wire.start()
        wire.behave(Impostor(identity) if identity else Refuse(b"N"))
        return f"127.0.0.1:{port}"

    yield serve
    for wire in wires:
        wire.stop()


def run(*arguments):
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_the_whole_chain_of_a_server_is_seen(authority, server):
    entry = Entry(name="below", row="x", must="connect", why="x", issuer="soon")
    identity = authority.issue(entry)
    leaf, above = certificates.of_server(server(identity))
    assert (leaf.role, above.role) == ("leaf", "intermediate")
    assert leaf.fingerprint == identity.fingerprint
    assert leaf.not_after == identity.not_after
    assert leaf.not_after - above.not_after > 300 * 86_400


def test_a_certificate_that_nobody_trusts_is_looked_at_all_the_same(authority, server):
    (seen,) = certificates.of_server(server(authority.issue("self-signed")))
    assert (seen.role, seen.fingerprint) == ("leaf", authority.issue("self-signed").fingerprint)


def test_files_hold_roots_and_revocation_lists(authority, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(authority.bundle("ca", "next-ca").read_bytes() + authority.crl(days=12.0).read_bytes())
    roles = [one.role for one in certificates.of_file(both)]
    assert roles == ["root", "root", "crl"]
    end = certificates.of_file(both)[-1].not_after
    assert end == pytest.approx(certificates.of_file(authority.crl(days=12.0))[0].not_after, abs=2)
    assert end < certificates.of_file(authority.crl())[0].not_after


def test_what_cannot_be_seen_is_said(server, tmp_path, authority):
    plain, gone = server(None), tmp_path / "gone.pem"
    (tmp_path / "empty.pem").write_text("nothing here", encoding="utf-8")
    watched = certificates.Watched(servers=(plain,), files=(gone, tmp_path / "empty.pem", authority.ca_file))
    endings, said = watched.look()
    assert [one.role for one in endings] == ["root"]
    assert "offers no TLS" in said[plain]
    assert "No such file" in said[str(gone)]
    text = certificates.exposition(watched)
    assert f'{certificates.PROBE}{{source="{plain}"}} 0.0' in text
    assert f'{certificates.PROBE}{{source="{authority.ca_file}"}} 1.0' in text


def test_served_and_on_disk(authority, server):
    address, other = server(authority.issue("valid")), authority.issue("rotated-leaf").chain_file
    same = run("certificates", "--server", address, "--expect", authority.issue("valid").chain_file)
    assert (same.exit_code, "served as on disk" in same.output) == (0, True)
    differs = run("certificates", "--server", address, "--expect", other)
    assert (differs.exit_code, "NOT SERVED" in differs.output) == (1, True)
    metrics = run("certificates", "--server", address, "--expect", other, "--text")
    assert f'{certificates.MATCHES}{{source="{address}"}} 0.0' in metrics.output


def test_what_has_ended_is_no_success(authority, server):
    assert run("certificates", "--server", server(authority.issue("expired"))).exit_code == 1


@pytest.mark.parametrize(
    "arguments", [("certificates",), ("certificates", "--server", "nowhere"), ("certificates", "--file", "x", "--expect", "y")]
)
def test_usage(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "export", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "->" in done.stderr


def test_every_family_can_be_explained():
    from chaos.about import HOW
    from chaos.cases import CASES

    assert {case.family for case in CASES} <= set(HOW)


def test_the_extra_names_what_the_matrix_knows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = " ".join(project["optional-dependencies"]["matrix"])
    assert all(name in named for name in ("asyncpg", "pg8000", "psycopg2", "sqlalchemy"))


# -- where Prometheus comes from -------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Neither on PATH nor in the cache; Go is a script of the test's own."""
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if not Path("/usr/bin/promtool").exists() else "/bin")

    def go(script):
        path = tmp_path / "go"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(go_module, "machines_go", lambda _oldest: path)

    return go


def test_a_machine_without_it_and_without_a_network_says_so(elsewhere):
    elsewhere('echo "dial tcp: lookup proxy: no such host" >&2; exit 1')
    assert tools.find() is None
    with pytest.raises(PartMissing, match="could not be had from the Go module proxy") as raised:
        tools.ensure()
    assert "no such host" in raised.value.render()
    assert tools.find() is None


def test_another_module_than_the_pinned_one_is_not_built(elsewhere):
    elsewhere("""echo '{"Sum": "h1:something", "Dir": "/"}'""")
    with pytest.raises(PartMissing, match="is not Prometheus"):
        tools.ensure()


def test_what_is_on_path_is_taken_when_it_is_new_enough(elsewhere, monkeypatch, tmp_path):
    for name, version in {"prometheus": "2.45.1", "promtool": "2.45.1"}.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{name}, version {version} (branch: x)'\n", encoding="utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    found = tools.find()
    assert (found.version, found.promtool) == ("2.45.1", tmp_path / "promtool")
    (tmp_path / "promtool").write_text("#!/bin/sh\necho 'promtool, version 2.9.0'\n", encoding="utf-8")
    assert tools.find() is None

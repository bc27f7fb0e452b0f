"""chaos.toml as the contract describes it: every key, every default, the candidate, placeholders and lines."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chaos.config import Config, candidate_of, expand, load, names_in
from chaos.config.locate import Locator
from chaos.errors import UsageError

CONTRACT = """\
[target]
name = "orders"
start = ["python", "-m", "orders", "--port", "{port}"]
cwd = "."
env = { DATABASE_URL = "{database_url}", PORT = "{port}" }
setup = [["alembic", "upgrade", "head"]]
live = "/healthz"
ready = "http://127.0.0.1:{port:admin}/readyz"
startup_timeout = 20
headers = { Authorization = "Bearer {token}" }
[target.database]
recovery = 12
fail_fast = 2.5
[target.hosts]
allowed = ["api.example.test", "*.example.test"]
seo = ["*.landing.example.test"]
preview = []
staging = ["staging.example.test:8443"]
crawler = ["xn--bcher-kva.example.test"]
health = ["127.0.0.1", "[::1]"]
[[target.prepare]]
method = "POST"
path = "/login"
form = { user = "u", password = "p" }
save = { token = "/access_token", first = "/items/0/a~1b" }
[[target.read]]
path = "/items/1"
[[target.read]]
path = "/items/{first}"
expect = [200, 404]
headers = { Accept = "application/json" }
[[target.write]]
path = "/items"
json = { name = "{unique}", tags = ["a", 1, 2.5, true, { deep = "{not_ours}" }] }
read_back = "/items?name={unique}"
idempotency_header = "Idempotency-Key"
[[target.invalid]]
path = "/items/not-a-number"
expect = 400
[[target.invalid]]
method = "post"
path = "/items"
body = "{"
[target.errors]
schema = "problem+json"
[target.openapi]
path = "/openapi.json"
[target.metrics]
path = "/metrics"
[target.logs]
file = "{log_file}"
fields = { host = "http.host" }
private = ["email", "authorization"]
[target.flags]
host_allowlist = { env = "HOST_ALLOWLIST", on = "enforce", off = "monitor" }
emergency_bypass = { env = "HOST_BYPASS", on = "1", off = "0" }
[target.candidate]
env = { RELEASE = "v2" }
[target.deploy]
deploy = ["./deploy", "{version}"]
rollback = ["./rollback"]
version_header = "X-Release"
[run]
workers = 1
[policy]
"C6" = "reject"
H64 = "serve"
H05 = "report"
[waivers]
"rep.documents" = "not written yet, by Ann, until 2027-01-01"
[gates]
"rel.p95" = 0.2
"res.rollback" = 300
[environment]
fsync = true
postgres_bin = "/usr/lib/postgresql/17/bin"
toxiproxy = "http://toxiproxy.example.test:8474"
proxy = "orders"
allow = ["staging.example.test"]
postgres_image = "postgres:17"
toxiproxy_image = "toxiproxy:2.12.0"
edge_image = "caddy:2.11"
"""

LEAST = """\
[target]
name = "orders"
start = ["orders", "{port}"]
live = "/healthz"
[[target.read]]
path = "/items/1"
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "chaos.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def contract(tmp_path: Path) -> Config:
    return load(write(tmp_path, CONTRACT))


class TestTheContract:
    def test_every_key_arrives(self, contract: Config, tmp_path: Path) -> None:
        target = contract.target
        assert contract.path == tmp_path / "chaos.toml"
        assert target.start == ("python", "-m", "orders", "--port", "{port}")
        assert target.setup == (("alembic", "upgrade", "head"),)
        assert target.cwd == tmp_path
        assert (target.live, target.ready) == ("/healthz", "http://127.0.0.1:{port:admin}/readyz")
        assert (target.startup_timeout, target.database.recovery, target.database.fail_fast) == (20.0, 12.0, 2.5)
        assert target.hosts is not None
        assert target.host == "api.example.test"
        assert target.hosts.health == ("127.0.0.1", "[::1]")
        assert target.prepare[0].save == {"token": "/access_token", "first": "/items/0/a~1b"}
        assert target.write[0].json == {"name": "{unique}", "tags": ["a", 1, 2.5, True, {"deep": "{not_ours}"}]}
        assert target.write[0].read_back == "/items?name={unique}"
        assert target.errors is not None
        assert (target.errors.schema, target.errors.schema_file) == ("problem+json", None)
        assert target.logs is not None
        assert (target.logs.fields.host, target.logs.fields.tls_cipher) == ("http.host", "tls_cipher")
        assert target.flags is not None
        assert target.flags.emergency_bypass is not None
        assert target.flags.emergency_bypass.env == "HOST_BYPASS"
        assert target.deploy is not None
        assert target.deploy.version_header == "X-Release"
        assert contract.run.workers == 1
        assert contract.policy == {"C6": "reject", "H64": "serve", "H05": "report"}
        assert contract.waivers == {"rep.documents": "not written yet, by Ann, until 2027-01-01"}
        assert contract.gates == {"rel.p95": 0.2, "res.rollback": 300.0}
        assert contract.environment.fsync is True
        assert contract.environment.postgres_bin == Path("/usr/lib/postgresql/17/bin")

    def test_methods_and_statuses(self, contract: Config) -> None:
        target = contract.target
        methods = [one.method for one in (*target.prepare, *target.read, *target.write, *target.invalid)]
        assert methods == ["POST", "GET", "GET", "POST", "GET", "POST"]
        assert [one.expected for one in (*target.read, *target.write, *target.invalid)] == [
            "2xx",
            "200, 404",
            "2xx",
            "400",
            "4xx",
        ]
        assert [status for status in (199, 200, 204, 299, 300, 404) if target.read[0].accepts(status)] == [200, 204, 299]
        assert [status for status in (200, 201, 404) if target.read[1].accepts(status)] == [200, 404]
        assert [status for status in (400, 404, 422, 500) if target.invalid[1].accepts(status)] == [400, 404, 422]

    def test_the_least_that_is_enough(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, LEAST))
        target = config.target
        assert (target.hosts, target.errors, target.openapi, target.metrics, target.logs) == (None,) * 5
        assert (target.flags, target.candidate, target.deploy, target.host) == (None, None, None, "")
        assert (target.database.recovery, target.database.fail_fast, target.startup_timeout) == (10.0, 5.0, 30.0)
        assert (config.run.workers, config.environment.fsync, config.policy, config.waivers) == (None, False, {}, {})

    def test_absent_tables_are_known(self, contract: Config, tmp_path: Path) -> None:
        tables = ("hosts", "database", "read", "write", "invalid", "errors", "logs", "flags", "candidate", "deploy")
        assert all(contract.target.declares(f"target.{table}") for table in tables)
        least = load(write(tmp_path, LEAST)).target
        assert [table for table in tables if least.declares(f"target.{table}")] == ["read"]
        passed_on = LEAST + "[target.candidate]\nenv = { DB = '{pg_host}' }\n"
        assert candidate_of(load(write(tmp_path, passed_on)).target).declares("target.database")

    def test_frozen_and_picklable(self, contract: Config) -> None:
        with pytest.raises(ValidationError):
            contract.target.name = "other"
        again = pickle.loads(pickle.dumps(contract))  # noqa: S301  (our own bytes; workers get it this way)
        assert again == contract
        assert again.target.where("start") == contract.target.where("start")

    def test_files_are_beside_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "service").mkdir()
        (tmp_path / "error.json").write_text("{}")
        (tmp_path / "openapi.yaml").write_text("openapi: 3.1.0")
        text = LEAST.replace("live =", 'cwd = "service"\nlive =')
        config = load(write(tmp_path, text + '[target.errors]\nschema = "error.json"\n[target.openapi]\nfile = "openapi.yaml"\n'))
        assert config.target.cwd == tmp_path / "service"
        assert config.target.errors is not None
        assert config.target.errors.schema_file == tmp_path / "error.json"
        assert config.target.openapi is not None
        assert config.target.openapi.file == tmp_path / "openapi.yaml"

    def test_a_relative_path_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, LEAST)
        monkeypatch.chdir(tmp_path)
        config = load(Path("chaos.toml"))
        assert config.path == tmp_path / "chaos.toml"
        assert config.target.where("start") == "chaos.toml:3"
        assert config.target.where("setup") == "chaos.toml:1"

    @pytest.mark.parametrize(("kind", "value"), [("image", "orders:1.2"), ("url", "https://staging.example.test/")])
    def test_other_kinds_of_target(self, tmp_path: Path, kind: str, value: str) -> None:
        target = load(write(tmp_path, LEAST.replace('start = ["orders", "{port}"]', f'{kind} = "{value}"'))).target
        assert (target.start, getattr(target, kind)) == (None, value.rstrip("/"))


class TestTheCandidate:
    def test_env_is_merged_key_by_key(self, contract: Config) -> None:
        candidate = candidate_of(contract.target)
        assert candidate.env == {"DATABASE_URL": "{database_url}", "PORT": "{port}", "RELEASE": "v2"}
        assert candidate.start == contract.target.start
        assert candidate.candidate is None
        assert contract.target.env.keys() == {"DATABASE_URL", "PORT"}
        assert candidate.where("env").endswith(f":{CONTRACT[: CONTRACT.index('env = { RELEASE')].count(chr(10)) + 1}")
        assert candidate.where("start").endswith(":3")

    def test_arrays_are_replaced_and_tables_laid_over(self, tmp_path: Path) -> None:
        more = "[target.database]\nrecovery = 7\nfail_fast = 3\n"
        more += '[target.candidate]\nstart = ["v2", "{port}"]\ndatabase = { fail_fast = 1 }\n'
        candidate = candidate_of(load(write(tmp_path, LEAST + more)).target)
        assert candidate.start == ("v2", "{port}")
        assert (candidate.database.recovery, candidate.database.fail_fast) == (7.0, 1.0)

    @pytest.mark.parametrize("kind", ['url = "http://127.0.0.1:1"', 'image = "orders:2"', 'start = ["v2", "{port}"]'])
    @pytest.mark.parametrize("base", ['start = ["orders", "{port}"]\nsetup = [["true"]]', 'image = "orders:1"'])
    def test_another_kind_of_target(self, tmp_path: Path, kind: str, base: str) -> None:
        text = LEAST.replace('start = ["orders", "{port}"]', base)
        candidate = candidate_of(load(write(tmp_path, text + f"[target.candidate]\n{kind}\n")).target)
        assert [candidate.start, candidate.image, candidate.url].count(None) == 2

    def test_none(self, tmp_path: Path) -> None:
        target = load(write(tmp_path, LEAST)).target
        with pytest.raises(UsageError, match=r"chaos.toml:1: orders has no candidate.*\n.*\[target.candidate\]"):
            candidate_of(target)


class TestPlaceholders:
    VALUES: dict[str, str] = {"port": "81", "port:admin": "82", "database_url": "postgresql://{port}", "unique": "u1"}

    @pytest.mark.parametrize(
        ("value", "expanded"),
        [
            ("--port={port}", "--port=81"),
            ("{port}{port:admin}", "8182"),
            ("{port:other}", "{port:other}"),
            ("{database_url}", "postgresql://{port}"),  # what is put in is not expanded again
            ("${port} ${HOME} {HOME}", "${port} ${HOME} {HOME}"),
            ('{"port": {"a": "{port}"}}', '{"port": {"a": "81"}}'),
            ("{{port}}", "{81}"),
            (
                ["{port}", ("{unique}",), {"{port}": ["{port}"]}, 7, None, True],
                ["81", ("u1",), {"{port}": ["81"]}, 7, None, True],
            ),
        ],
    )
    def test_known_names_only(self, value: Any, expanded: Any) -> None:
        assert expand(value, self.VALUES) == expanded

    def test_what_is_named(self) -> None:
        assert names_in({"a": ["{port}", "{port:b}"], "{key}": ("${c}", "{d e}", "{}", "{f}")}) == {"port", "port:b", "f"}

    @given(st.text(alphabet="{}$:portunique a\n", max_size=40))
    def test_nothing_known_nothing_changed(self, text: str) -> None:
        assert expand(text, {}) == text


TRICKY = '''
# "quotes" [in] {comments} do not count
top = 1
"quoted key"."and.dotted" = "x # not a comment"
[ a . b ]   # spaces
multi = """
[not.a.table]
key = "no" \\""" still in ""
""""
literal = \'\'\'
[[nor.this]]
\'\'\'\'
list = [ # one
  "a, ]", [1, 2],

  { x = 1, y.z = "}" },
]
[[t]]
n = 1
[[t.inner]]
m = 2
[[t.inner]]
m = 3
[t.inner.deep]
k = 1979-05-27 07:32:00
[[t]]
[[t.inner]]
m = 4
[z."é\\u00e9"]
last = { a.b = [ { c = 1.0 } ] }
'''


VALUES = [
    "1",
    "-1.5e3 # [x]",
    "1979-05-27 07:32:00",
    '"a # \\" = [b"',
    "'c\\'",
    '"""\nk0 = "x"\n[t]\n"\\""""""',
    "'''\n[[t]]\n'''''",
    "[ 1, # ]\n [\n2,],\n]",
    '[{ a = "}" }, { "b.c".d = [ 1 ] }]',
    "{ a = { b = 'x' }, c = 1 }",
    "[]",
    "{}",
]


class TestLines:
    def test_every_path_of_a_tricky_document_is_found(self) -> None:
        locator = Locator(TRICKY)
        assert [path for path in _paths(tomllib.loads(TRICKY)) if path not in locator] == []

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (("top",), "top = 1"),
            (("quoted key", "and.dotted"), '"quoted key"'),
            (("a", "b"), "[ a . b ]"),
            (("a", "b", "literal"), "literal"),
            (("a", "b", "list", 2, "y", "z"), "  { x = 1"),
            (("t", 0, "inner", 1, "m"), "m = 3"),
            (("t", 0, "inner", 1, "deep", "k"), "k = 1979"),
            (("t", 1, "inner", 0, "m"), "m = 4"),
            (("z", "éé", "last", "a", "b", 0, "c"), "last ="),
            (("t", 1, "absent"), "[[t]]"),
        ],
    )
    def test_the_right_line(self, path: tuple[str | int, ...], text: str) -> None:
        line = TRICKY.split("\n")[Locator(TRICKY).line(path) - 1]
        assert line.startswith(text)

    def test_carriage_returns(self) -> None:
        assert Locator(CONTRACT.replace("\n", "\r\n")).line(("target", "live")) == 7

    @given(st.lists(st.sampled_from(VALUES), max_size=12), st.booleans())
    def test_each_key_of_a_document_stands_where_it_was_written(self, values: list[str], table: bool) -> None:
        lines = ["[t]"] if table else []
        expected: dict[tuple[str, ...], int] = {("t",): 1} if table else {}
        for number, value in enumerate(values):
            key = ("t", f"k{number}") if table else (f"k{number}",)
            expected[key] = sum(line.count("\n") + 1 for line in lines) + 1
            lines.append(f"k{number} = {value}")
        text = "\n".join(lines)
        locator = Locator(text)
        assert {key: locator.line(key) for key in expected} == expected
        assert [path for path in _paths(tomllib.loads(text)) if path not in locator] == []

    @given(st.text(alphabet="[]{}=\"'#\\\n., ab", max_size=60))
    def test_it_never_runs_away(self, text: str) -> None:
        locator = Locator(text)
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return
        assert [path for path in _paths(data) if path not in locator] == []


def _paths(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    return [found for key, item in items for found in ((*path, key), *_paths(item, (*path, key)))]

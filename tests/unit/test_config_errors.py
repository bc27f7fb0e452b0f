"""What is wrong with a chaos.toml, where, and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.config import load
from chaos.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

LEAST = """\
[target]
name = "orders"
start = ["orders", "{port}"]
live = "/healthz"
[[target.read]]
path = "/items/1"
"""
HOSTS = '[target.hosts]\nallowed = ["api.example.test"]\n'


def error_of(directory: Path, text: str) -> ConfigError:
    path = directory / "chaos.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# (what is added, line of the mistake, what it says, what the remedy says)
BELOW = [
    ("tiemout = 3", 7, "unknown key 'tiemout' in [target.read[0]]", "method, path, headers, json"),
    ('methd = "GET"', 7, "unknown key 'methd' in [target.read[0]]: did you mean 'method'?", "the keys known here: method"),
    ("method = 1", 7, "target.read[0].method: expected text, got the number 1", 'put it in quotes: "1"'),
    ('method = "G T"', 7, "target.read[0].method: 'G T' is no HTTP method", '"GET"'),
    ('expect = "200"', 7, "expect is neither a status, an array of them, nor a class", '201, [200, 404] or "2xx"'),
    ("expect = 99", 7, "neither a status", "2xx"),
    ("expect = true", 7, "neither a status", "2xx"),
    ('expect = [200, "4xx"]', 7, "neither a status", "2xx"),
    ("expect = []", 7, "neither a status", "2xx"),
    ('headers = { Host = "x" }', 7, "Host is the first of [target.hosts] allowed", "remove this header"),
    ('headers = { "a b" = "x" }', 7, "'a b' is no header name", "RFC 9110"),
    ('headers = { a = "x\\ny" }', 7, "holds a line break", "one line"),
    ('headers = ["a"]', 7, "target.read[0].headers: expected a table, got an array", "for example headers = {"),
    ('form = { a = "b" }\nbody = "x"', 8, "form and body: a request has one body", "keep one"),
    ("json = { at = 1979-05-27 }", 7, "JSON has no date such as 1979-05-27", "text"),
    ("json = { at = inf }", 7, "JSON has no float such as inf", "text"),
    ('[[target.read]]\npath = "items"', 8, "target.read[1].path: 'items' is neither a path nor a URL", "begin it with /"),
    ('[[target.read]]\npath = "/a b"', 8, "'/a b' is neither", "%20"),
    ("[[target.read]]", 7, "[target.read[1]] needs 'path'", 'add path = "/items/1"'),
    ('[[target.prepare]]\npath = "/a"\nsave = { t = "access" }', 9, "'access' is no JSON pointer", "/access_token"),
    ('[[target.prepare]]\npath = "/a"\nsave = { port = "/p" }', 9, "{port} already has a meaning", "another name"),
    ('[[target.prepare]]\npath = "/a"\nsave = { "a b" = "/p" }', 9, "cannot be used as {a b}", "letters"),
    ('[[target.write]]\npath = "/a"\nread_back = "/b"', 9, "read_back looks for the {unique} value", "put {unique}"),
    ('[[target.write]]\npath = "/{unique}"\nidempotency_header = "a b"', 9, "'a b' is no header name", "Idempotency-Key"),
    ('[[target.invalid]]\npath = "/a"\nexpect = "2xx"', 9, "an invalid request deserves a 4xx", "expect = 400"),
    ('[target.invalid]\npath = "/a"', 7, "target.invalid: expected an array, got a table", "give an array"),
    ("[target.database]\nrecovery = 0", 8, "target.database.recovery: expected more than 0, got the number 0", "recovery = 10"),
    ("[target.database]\nrecovery = inf", 8, "expected a finite number", "recovery = 10"),
    ('[target.database]\nrecovery = "10"', 8, "target.database.recovery: expected a number, got text", "recovery = 10"),
    ("[target.hosts]\nallowed = []", 8, "the first allowed host is the Host of every request", "api.example.test"),
    ('[target.hosts]\nallowed = ["*.a.test"]', 8, "the first allowed host", "no pattern"),
    ('[target.hosts]\nseo = ["a.test"]', 7, "[target.hosts] needs 'allowed'", 'add allowed = ["api.example.test"]'),
    (
        HOSTS + 'seo = [\n  "a.test",\n  "https://b.test",\n]',
        11,
        "target.hosts.seo[1]: 'https://b.test' is no host name",
        "*.example.test",
    ),
    (HOSTS + 'seo = "a.test"', 9, "target.hosts.seo: expected an array, got text", 'seo = ["*.landing'),
    (HOSTS + "seo = [1]", 9, "target.hosts.seo[0]: expected text, got the number 1", "quotes"),
    (HOSTS + 'sea = ["a.test"]', 9, "unknown key 'sea' in [target.hosts]: did you mean 'seo'?", "allowed, seo"),
    ('[target.errors]\nschema = "problem-json"', 8, "did you mean 'problem+json'?", "JSON Schema file"),
    ('[target.errors]\nschema = "absent.json"', 8, "no such file:", "relative to the file"),
    ('[target.errors]\nschema = "chaos.toml"', 8, "chaos.toml is no JSON", "problem+json"),
    ('[target.openapi]\npath = "/a"\nfile = "chaos.toml"', 9, "path and file exclude each other", "exactly one of path and file"),
    ("[target.openapi]", 7, "none of path and file", "exactly one"),
    ("[target.metrics]\npath = 1", 8, "target.metrics.path: expected text", "quotes"),
    (
        '[target.logs]\nfields = { hots = "h" }',
        8,
        "unknown key 'hots' in [target.logs.fields]: did you mean 'host'?",
        "request_id",
    ),
    (
        '[target.flags]\nhost_allowlist = { env = "A", on = "1" }',
        8,
        "[target.flags.host_allowlist] needs 'off'",
        'add off = "monitor"',
    ),
    ('[target.flags]\nhost_allow_list = { env = "A" }', 8, "did you mean 'host_allowlist'?", "emergency_bypass"),
    ('[target.deploy]\ndeploy = ["a"]\nrollback = ["b"]', 7, "[target.deploy] needs 'version_header'", '"X-Release"'),
    ('[target.edge]\nstart = ["a", "{origin_port}"]', 8, "neither start nor env says {edge_port}", "EDGE_PORT"),
    ('[target.edge]\nstart = ["a", "{edge_port}"]', 8, "where it finds the target", "{origin_port}"),
    ('[target.edge]\nstart = ["{edge_port}", "{origin_port}", "{edge_crt}"]', 8, "did you mean {edge_cert}?", "{edge_key}"),
    ('[target.edge]\nstart = ["a", "{edge_port}", "{origin_port}", "{port}"]', 8, "{port} has no value here", "{edge_port}"),
    ('[target.edge]\nstart = ["{edge_port}{origin_port}"]\nevn = {}', 9, "unknown key 'evn' in [target.edge]", "start, env"),
    ("[run]\nworkers = 0", 8, "run.workers: expected at least 1, got the number 0", "workers = 1"),
    ("[run]\nworkers = 1.5", 8, "run.workers: expected a whole number, got the number 1.5", "workers = 1"),
    ("[run]\nworkers = true", 8, "run.workers: expected a whole number, got true", "workers = 1"),
    ("[runs]\nworkers = 1", 7, "unknown key 'runs' in the file: did you mean 'run'?", "target, run, policy"),
    ('[policy]\nC6 = "maybe"', 8, "policy.C6: expected 'reject', 'accept', 'serve' or 'report', got text", "for example"),
    ('[policy]\nH5 = "serve"', 8, "policy.H5: unknown catalogue row 'H5': did you mean 'H05'?", "C1 to C27"),
    ('[policy]\nX1 = "serve"', 8, "policy.X1: unknown catalogue row 'X1'", "C1 to C27"),
    (
        '[waivers]\n"rep.document" = "why, by whom"',
        8,
        "unknown requirement id 'rep.document': did you mean 'rep.documents'?",
        "sec.verify_full",
    ),
    (
        '[waivers]\nrep.documents = "why, by whom"',
        8,
        "rep.documents without quotes is a table within a table",
        '"rep.documents" =',
    ),
    ('[waivers]\n"rep.documents" = ""', 8, "rep.documents is waived without a reason", "why, by whom, until when"),
    ('[gates]\n"rel.p59" = 1', 8, "did you mean 'rel.p95'?", "sec.verify_full"),
    ('[gates]\n"rel.p95" = "200 ms"', 8, "gates.rel.p95: expected a number, got text", "200"),
    ('[gates]\n"sec.waf" = 1', 8, "sec.waf has no limit that could be changed", "waivers"),
    ('[environment]\nfsync = "yes"', 8, "environment.fsync: expected true or false, got text", "fsync = true"),
    ('[environment]\ntoxiproxy = "http://a.test:8474"', 8, "toxiproxy without proxy", "add proxy"),
    ('[environment]\ntoxiproxy = "a.test:8474"\nproxy = "p"', 8, "'a.test:8474' is no URL", "https://"),
    (
        '[target.candidate]\nevn = { A = "b" }',
        8,
        "in [target.candidate], unknown key 'evn' in [target]: did you mean 'env'?",
        "name, start",
    ),
    ("[target.candidate]\nenv = { A = 1 }", 8, "in [target.candidate], target.env.A: expected text, got the number 1", "quotes"),
    ('[target.candidate]\nimage = "a"\nurl = "http://b.test"', 9, "image and url exclude each other", "exactly one"),
    (
        '[target.candidate]\n[target.candidate.candidate]\nname = "b"',
        7,
        "target.candidate: expected a table of the keys that differ",
        "env",
    ),
    ('[target.metrics]\nnames = { pool_bussy = "x" }', 8, "unknown role 'pool_bussy': did you mean 'pool_busy'?", "errors_4xx"),
    ('[target.metrics]\nnames = { pool_busy = "a b" }', 8, "'a b' is no metric", 'pool{state="busy"}'),
    ('[target.logs]\nretention_file = "gone.conf"', 8, "no such file", "relative to the file"),
    ("[target.logs]\nretention_pattern = 'days'", 8, "its first group is to be the number of days", r"(\d+)"),
    ("[target.logs]\nretention_pattern = '(days'", 8, "no regular expression", "mend it"),
    ('[target.candidate]\nstart = ["orders"]', 8, "neither start nor env says {port}", "PORT"),
    (
        "[target.candidate]\nenv = { U = '{databse_url}' }",
        8,
        "unknown placeholder {databse_url}: did you mean {database_url}?",
        "{ca_file}",
    ),
]


@pytest.mark.parametrize(("more", "line", "what", "remedy"), BELOW, ids=lambda value: str(value)[:60])
def test_a_mistake_below(tmp_path: Path, more: str, line: int, what: str, remedy: str) -> None:
    error = error_of(tmp_path, LEAST + more + "\n")
    assert error.where == f"chaos.toml:{line}"
    assert what in error.what
    assert remedy in f"{error.remedy} {error.what}"
    assert error.tail == ()


# (what is replaced, by what, line, what it says, what the remedy says)
WITHIN = [
    ('name = "orders"\n', "", 1, "[target] needs 'name'", 'add name = "orders"'),
    ('name = "orders"', 'name = ""', 2, "target.name: expected a text that is not empty, got an empty text", '"orders"'),
    ('start = ["orders", "{port}"]\n', "", 1, "target: none of start, image and url", "exactly one of start, image and url"),
    ('live = "/healthz"', 'image = "a"\nlive = "/healthz"', 4, "start and image exclude each other", "exactly one"),
    (
        '["orders", "{port}"]',
        '"orders --port {port}"',
        3,
        "expected an array of arguments, got text",
        'write ["orders", "--port", "{port}"]',
    ),
    ('["orders", "{port}"]', "[]", 3, "a command needs a program", '["python"'),
    ('["orders", "{port}"]', '["orders", 8000]', 3, "target.start[1]: expected text, got the number 8000", '"8000"'),
    ('["orders", "{port}"]', '["orders"]', 3, "neither start nor env says {port}", 'PORT = "{port}"'),
    ('["orders", "{port}"]', '["orders", "{port}{prot}"]', 3, "unknown placeholder {prot}: did you mean {port}?", "{pg_host}"),
    ('["orders", "{port}"]', '["orders", "{port}", "{unique}"]', 3, "{unique} has no value here", "use one of: {ca_file}"),
    ('["orders", "{port}"]', '["orders", "{port}", "{ca_file:x}"]', 3, "only {port:name} takes a name", "write {ca_file}"),
    ('live = "/healthz"\n', "", 1, "neither live nor ready", 'add live = "/healthz"'),
    ('live = "/healthz"', 'live = "/healthz"\ncwd = "absent"', 5, "cwd is no directory", "relative to the file"),
    ('live = "/healthz"', 'live = "/healthz"\nsetup = ["a", "b"]', 5, "got one command", '[["a", "b"]]'),
    ('live = "/healthz"', 'live = "/healthz"\nsetup = "a b"', 5, "got text", '[["a", "b"]]'),
    (
        'live = "/healthz"',
        'live = "/healthz"\nenv = { A = 8000 }',
        5,
        "target.env.A: expected text, got the number 8000",
        '"8000"',
    ),
    ('live = "/healthz"', 'live = "/healthz"\nenv = { A = true }', 5, "target.env.A: expected text, got true", '"true"'),
    ('live = "/healthz"', 'live = "/healthz"\nenv = { A = "{pg_pasword}" }', 5, "did you mean {pg_password}?", "{database_url}"),
    ('live = "/healthz"', 'live = "/healthz"\nstartup_timeout = "30s"', 5, "expected a number, got text", "startup_timeout = 30"),
    ('[[target.read]]\npath = "/items/1"', "", 1, "no [[target.read]]", 'path = "/items/1"'),
    (
        '["orders", "{port}"]',
        '["orders", "{port}"]\nstrat = 1',
        4,
        "unknown key 'strat' in [target]: did you mean 'start'?",
        "name, start",
    ),
    ("[target]", "[taget]", 1, "unknown key 'taget' in the file: did you mean 'target'?", "target, run"),
]


@pytest.mark.parametrize("case", WITHIN, ids=lambda case: case[3][:50])
def test_a_mistake_within(tmp_path: Path, case: tuple[str, str, int, str, str]) -> None:
    old, new, line, what, remedy = case
    assert old in LEAST
    error = error_of(tmp_path, LEAST.replace(old, new, 1))
    assert error.where == f"chaos.toml:{line}"
    assert what in error.what
    assert remedy in error.remedy


def test_a_slip_comes_before_what_follows_from_it(tmp_path: Path) -> None:
    error = error_of(tmp_path, LEAST.replace("{port}", "{prot}"))
    assert error.what == "unknown placeholder {prot}: did you mean {port}?"
    assert error.tail[0].startswith("chaos.toml:3: target.start: neither start nor env says {port}")


def test_env_has_no_effect_on_a_url(tmp_path: Path) -> None:
    text = LEAST.replace('start = ["orders", "{port}"]', 'url = "http://a.test"\nenv = { A = "b" }')
    error = error_of(tmp_path, text)
    assert (error.where, error.what) == (
        "chaos.toml:4",
        "target.env: env has no effect on a target that is already running (url)",
    )


def test_all_mistakes_the_first_first(tmp_path: Path) -> None:
    text = LEAST.replace('"/healthz"', "7") + 'expct = 200\n[run]\nworkers = "2"\n[target.candidate]\nenv = { A = "{porrt}" }\n'
    error = error_of(tmp_path, text)
    keys = "method, path, headers, json, form, body, expect"
    names = "{ca_file} {database_url} {log_file} {pg_database} {pg_host} {pg_password} {pg_port} {pg_user} {port} {work_dir}"
    assert str(error).splitlines() == [
        "chaos.toml:4: target.live: expected text, got the number 7",
        "    | chaos.toml:7: unknown key 'expct' in [target.read[0]]: did you mean 'expect'? (the keys known here: " + keys + ")",
        "    | chaos.toml:9: run.workers: expected a whole number, got text (for example workers = 1)",
        "    | chaos.toml:11: unknown placeholder {porrt}: did you mean {port}? (the names known here: " + names + ")",
        '  -> put it in quotes: "7"',
    ]


def test_a_flood_is_cut(tmp_path: Path) -> None:
    error = error_of(tmp_path, LEAST + "".join(f"wrong{n} = 1\n" for n in range(40)))
    assert error.where == "chaos.toml:7"
    assert (len(error.tail), error.tail[-1]) == (21, "and 19 more")


def test_secrets_are_not_repeated(tmp_path: Path) -> None:
    error = error_of(tmp_path, LEAST + '[target.database]\nrecovery = "hunter2"\n')
    assert "hunter2" not in str(error)


SYNTAX = [
    ('method = "POST"; path = "/login"', 7, "TOML has no ';': give each key a line of its own"),
    ("fsync = True", 7, "TOML says true and false, in lower case; what has no value is left out"),
    ("path = /login", 7, "put text in quotes"),
    ("path = 'a", 7, "mend the syntax (https://toml.io/en/v1.0.0)"),
    ('path = "/again"', 7, "mend the syntax (https://toml.io/en/v1.0.0)"),
    ("a = [1,\n", 7, "mend the syntax (https://toml.io/en/v1.0.0)"),
]


@pytest.mark.parametrize(("more", "line", "remedy"), SYNTAX)
def test_not_toml(tmp_path: Path, more: str, line: int, remedy: str) -> None:
    error = error_of(tmp_path, LEAST + more + "\n")
    assert error.what.startswith("this is not TOML: ")
    assert "at line" not in error.what
    assert (int(error.where.removeprefix("chaos.toml:")), error.remedy) == (line, remedy)


def test_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "chaos.toml").write_bytes(LEAST.encode() + b'x = "\xff"\n')
    with pytest.raises(ConfigError, match=r"chaos.toml:7: TOML is UTF-8, and this is not"):
        load(tmp_path / "chaos.toml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: chaos.toml\n  -> write one with: chaos-gate init"):
        load(tmp_path / "chaos.toml")


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    with pytest.raises(UsageError, match=r"service is a directory\n  -> name the file: -c service/chaos.toml"):
        load(tmp_path / "service")


def test_empty(tmp_path: Path) -> None:
    error = error_of(tmp_path, "")
    assert (error.where, error.what) == ("chaos.toml:1", "the file needs 'target'")


def test_target_is_no_table(tmp_path: Path) -> None:
    error = error_of(tmp_path, "target = 1\n")
    assert (error.where, error.what) == ("chaos.toml:1", "target: expected a table, got the number 1")

"""What chaos.toml may say, as types. Every key of the contract is a field; nothing here reads a file.

All models are frozen, refuse unknown keys and convert nothing: a number where text belongs is an error, not text. `examples` on a
field is how its right-hand side may look in the file; the error about a wrong value quotes it. Durations are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from chaos.config import rules
from chaos.config.placeholders import DATABASE, names_in
from chaos.config.rules import wrong


class Model(BaseModel):
    """Frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


Strings = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(rules.array)]
Argv = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(rules.argv)]
Commands = Annotated[tuple[Argv, ...], Field(strict=False), BeforeValidator(rules.commands)]
PlainHosts = Annotated[Strings, AfterValidator(rules.plain_hosts)]
HostNames = Annotated[Strings, AfterValidator(rules.host_names)]
Headers = Annotated[Mapping[str, str], AfterValidator(rules.headers)]
Location = Annotated[str, AfterValidator(rules.location)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Expect = Annotated[int | tuple[int, ...] | str, PlainValidator(rules.expect)]
Url = Annotated[str, AfterValidator(rules.url)]
ControlUrl = Annotated[str, AfterValidator(rules.control_url)]
Token = Annotated[str, AfterValidator(rules.token)]
Json = Annotated[JsonValue, PlainValidator(rules.json_value)]
Directory = Annotated[Path, BeforeValidator(rules.beside_the_file)]
File = Annotated[Path, BeforeValidator(rules.beside_the_file), AfterValidator(rules.exists)]


class Request(Model):
    """A request of the suite: what is sent, and which answers are healthy.

    `path` may be a whole URL. At most one of `json`, `form` and `body` is set. `method` in the file defaults to
    GET, for writes and prepare requests to POST.
    """

    default_method: ClassVar[str] = "GET"

    method: Annotated[str, AfterValidator(rules.method)] = Field(default="", examples=['"GET"'])
    path: Location = Field(examples=['"/items/1"'])
    headers: Headers = Field(default={}, examples=['{ Accept = "application/json" }'])
    json_body: Json = Field(default=None, alias="json", examples=['{ name = "{unique}" }'])
    form: Mapping[str, str] | None = Field(default=None, examples=['{ user = "u" }'])
    body: str | None = Field(default=None, examples=['"text"'])
    expect: Expect = Field(default="2xx", examples=['"2xx"', "201", "[200, 404]"])

    @field_validator("method", mode="after")
    @classmethod
    def _method(cls, value: str) -> str:
        return value or cls.default_method

    @model_validator(mode="after")
    def _one_body(self) -> Request:
        given = [key for key, value in (("json", self.json_body), ("form", self.form), ("body", self.body)) if value is not None]
        if len(given) > 1:
            raise wrong(f"{' and '.join(given)}: a request has one body", "keep one of json, form and body", key=given[1])
        return self

    @property
    def json(self) -> JsonValue:  # type: ignore[override]  # takes the place of pydantic's deprecated method, which nobody misses
        """The body as JSON; None when there is none."""
        return self.json_body

    @property
    def expected(self) -> str:
        """`expect` as `chaos.model.Operation.expected` shows it: '2xx', '400', '200, 404'."""
        return ", ".join(map(str, self.expect)) if isinstance(self.expect, tuple) else str(self.expect)

    def accepts(self, status: int) -> bool:
        """Whether an answer with this status is healthy."""
        if isinstance(self.expect, str):
            return status // 100 == int(self.expect[0])
        return status in self.expect if isinstance(self.expect, tuple) else status == self.expect


class Prepare(Request):
    """Sent once, in order, when the target is ready. `save`: name -> JSON pointer (RFC 6901) into the answer."""

    default_method: ClassVar[str] = "POST"

    save: Annotated[Mapping[str, str], AfterValidator(rules.saved)] = Field(default={}, examples=['{ token = "/access_token" }'])


class Read(Request):
    """Reads the database."""


class Write(Request):
    """Writes the database. It is found again when the answer to `read_back` holds its `{unique}` value."""

    default_method: ClassVar[str] = "POST"

    read_back: Location | None = Field(default=None, examples=['"/items?name={unique}"'])
    idempotency_header: Token | None = Field(default=None, examples=['"Idempotency-Key"'])

    @model_validator(mode="after")
    def _found_again(self) -> Write:
        sent = (self.path, self.headers, self.json_body, self.form, self.body)
        if self.read_back is not None and "unique" not in names_in(sent):
            what = "read_back looks for the {unique} value of a write, but the request sends none"
            raise wrong(what, 'put {unique} into what is written, for example json = { name = "{unique}" }', key="read_back")
        return self


class Invalid(Request):
    """Deserves a 4xx, always."""

    expect: Expect = Field(default="4xx", examples=["400", '"4xx"', "[400, 422]"])

    @field_validator("expect", mode="after")
    @classmethod
    def _client_error(cls, value: int | tuple[int, ...] | str) -> int | tuple[int, ...] | str:
        all_of = value if isinstance(value, tuple) else (value,)
        if any(str(one)[0] != "4" for one in all_of):
            raise wrong("an invalid request deserves a 4xx", 'write expect = 400, or another 4xx; "4xx" takes any')
        return value


class Database(Model):
    """Deadlines, in seconds: to serve again once a fault has gone, and to answer at all while it lasts."""

    recovery: Seconds = Field(default=10.0, examples=["10"])
    fail_fast: Seconds = Field(default=5.0, examples=["5"])


class Hosts(Model):
    """Names that must be served, by what they are for. `allowed[0]` is the Host of the suite's own requests."""

    allowed: HostNames = Field(examples=['["api.example.test"]'])
    seo: HostNames = Field(default=(), examples=['["*.landing.example.test"]'])
    preview: HostNames = Field(default=(), examples=['["*.preview.example.test"]'])
    staging: HostNames = Field(default=(), examples=['["staging.example.test"]'])
    crawler: HostNames = Field(default=(), examples=['["crawler.example.test"]'])
    health: HostNames = Field(default=(), examples=['["127.0.0.1"]'])

    @field_validator("allowed", mode="after")
    @classmethod
    def _first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or value[0].startswith("*"):
            what = "the first allowed host is the Host of every request: it must be there, and be no pattern"
            raise wrong(what, 'for example allowed = ["api.example.test"]')
        return value


class Errors(Model):
    """The standard error schema: 'problem+json' (RFC 9457), or the path of a JSON Schema file (absolute here)."""

    schema_name: Annotated[str, AfterValidator(rules.schema)] = Field(alias="schema", examples=['"problem+json"'])

    @property
    def schema(self) -> str:  # type: ignore[override]  # as with Request.json
        """'problem+json', or a path."""
        return self.schema_name

    @property
    def schema_file(self) -> Path | None:
        """The JSON Schema; None for problem+json."""
        return None if self.schema_name == "problem+json" else Path(self.schema_name)


class OpenApi(Model):
    """Where the target's own description is: served at `path`, or in `file`."""

    path: Location | None = Field(default=None, examples=['"/openapi.json"'])
    file: File | None = Field(default=None, examples=['"openapi.yaml"'])

    @model_validator(mode="after")
    def _one(self) -> OpenApi:
        rules.exactly_one(path=self.path, file=self.file)
        return self


class Metrics(Model):
    """Where the target serves Prometheus metrics. `names`: role (chaos/checks/panels.toml) -> the metric that plays it."""

    path: Location = Field(default="/metrics", examples=['"/metrics"'])
    names: Annotated[Mapping[str, str], AfterValidator(rules.roles)] = Field(default={}, examples=['{ pool_busy = "in_use" }'])


class Alerts(Model):
    """The alerting rules that the operators run, when they are not those of `chaos-gate export prometheus`."""

    rules: File = Field(examples=['"ops/rules.yml"'])


class LogFields(Model):
    """What the target calls the fields that the suite looks for; by default what the suite calls them."""

    host: str = Field(default="host", examples=['"host"'])
    request_id: str = Field(default="request_id", examples=['"request_id"'])
    upstream_ip: str = Field(default="upstream_ip", examples=['"upstream_ip"'])
    tls_version: str = Field(default="tls_version", examples=['"tls_version"'])
    tls_cipher: str = Field(default="tls_cipher", examples=['"tls_cipher"'])
    error_code: str = Field(default="error_code", examples=['"error_code"'])


class Logs(Model):
    """The target's structured log: JSON lines, from stdout unless `file` is given (relative to the target's cwd).

    `retention_file` is where it is set how long logs are kept; the first group of `retention_pattern` is the number of days in it.
    """

    file: str | None = Field(default=None, examples=['"{log_file}"'])
    fields: LogFields = Field(default=LogFields(), examples=['{ host = "host" }'])
    private: Strings = Field(default=(), examples=['["email", "authorization"]'])
    retention_file: File | None = Field(default=None, examples=['"ops/logrotate.conf"'])
    retention_pattern: Annotated[str, AfterValidator(rules.one_group)] | None = Field(
        default=None, examples=["'keep_days = (\\d+)'"]
    )

    @property
    def declared(self) -> Mapping[str, str]:
        """The fields that `fields` names (what the suite calls them -> what the target does); "" takes one out."""
        named = self.fields.model_fields_set if "fields" in self.model_fields_set else set()
        return {name: path for name in LogFields.model_fields if name in named and (path := getattr(self.fields, name))}


class Flag(Model):
    """A feature flag: the environment variable that sets it, and its two values."""

    env: str = Field(min_length=1, examples=['"HOST_ALLOWLIST"'])
    on: str = Field(examples=['"enforce"'])
    off: str = Field(examples=['"monitor"'])


class Flags(Model):
    """The two flags that roll.safeguards asks for."""

    host_allowlist: Flag | None = Field(default=None, examples=['{ env = "HOST_ALLOWLIST", on = "enforce", off = "monitor" }'])
    emergency_bypass: Flag | None = Field(default=None, examples=['{ env = "HOST_BYPASS", on = "1", off = "0" }'])


class Deploy(Model):
    """The team's own tooling; `{version}` is 'baseline' or 'candidate', `{weight}` (optional) the per cent of the requests it gets.

    `version_header` says on an answer which one it was.
    """

    deploy: Argv = Field(examples=['["./deploy", "{version}"]'])
    rollback: Argv = Field(examples=['["./rollback"]'])
    version_header: Token = Field(examples=['"X-Release"'])


class Edge(Model):
    """The team's own edge: a command that listens with TLS on {edge_port} of 127.0.0.1 and passes on to {origin_port}."""

    start: Argv = Field(examples=['["caddy", "run", "--config", "edge/Caddyfile"]'])
    env: Mapping[str, str] = Field(default={}, examples=['{ EDGE_PORT = "{edge_port}", ORIGIN_PORT = "{origin_port}" }'])

    @model_validator(mode="after")
    def _told(self) -> Edge:
        for name, purpose in (("edge_port", "is to listen"), ("origin_port", "finds the target")):
            if name not in names_in((self.start, self.env)):
                what = f"neither start nor env says {{{name}}}: the edge cannot know where it {purpose}"
                raise wrong(what, f'pass it on, for example env = {{ {name.upper()} = "{{{name}}}" }}', key="start")
        return self


class Target(Model):
    """The service under test: one of `start` (a command), `image` (a container) and `url` (already running)."""

    name: str = Field(min_length=1, examples=['"orders"'])
    start: Argv | None = Field(default=None, examples=['["python", "-m", "orders", "--port", "{port}"]'])
    image: str | None = Field(default=None, min_length=1, examples=['"orders:1.2"'])
    url: Url | None = Field(default=None, examples=['"https://staging.example.test"'])
    cwd: Directory = Field(default=Path(), examples=['"."'])
    env: Mapping[str, str] = Field(default={}, examples=['{ DATABASE_URL = "{database_url}" }'])
    setup: Commands = Field(default=(), examples=['[["alembic", "upgrade", "head"]]'])
    live: Location | None = Field(default=None, examples=['"/healthz"'])
    ready: Location | None = Field(default=None, examples=['"/readyz"'])
    startup_timeout: Seconds = Field(default=30.0, examples=["30"])
    headers: Headers = Field(default={}, examples=['{ Authorization = "Bearer {token}" }'])
    database: Database = Field(default=Database(), examples=["{ recovery = 10 }"])
    hosts: Hosts | None = Field(default=None, examples=['{ allowed = ["api.example.test"] }'])
    prepare: Annotated[tuple[Prepare, ...], Field(strict=False), BeforeValidator(rules.array)] = ()
    read: Annotated[tuple[Read, ...], Field(strict=False), BeforeValidator(rules.array)] = ()
    write: Annotated[tuple[Write, ...], Field(strict=False), BeforeValidator(rules.array)] = ()
    invalid: Annotated[tuple[Invalid, ...], Field(strict=False), BeforeValidator(rules.array)] = ()
    errors: Errors | None = Field(default=None, examples=['{ schema = "problem+json" }'])
    openapi: OpenApi | None = Field(default=None, examples=['{ path = "/openapi.json" }'])
    provider: Annotated[Strings, AfterValidator(rules.path_patterns)] = Field(default=(), examples=['["/provider/*"]'])
    contract: Directory | None = Field(default=None, examples=['"contract.json"'])  # recorded there when it is not there yet
    metrics: Metrics | None = Field(default=None, examples=['{ path = "/metrics" }'])
    alerts: Alerts | None = Field(default=None, examples=['{ rules = "ops/rules.yml" }'])
    logs: Logs | None = Field(default=None, examples=['{ file = "{log_file}" }'])
    flags: Flags | None = None
    candidate: Target | None = None
    deploy: Deploy | None = None
    edge: Edge | None = Field(default=None, examples=['{ start = ["./edge", "{edge_port}", "{origin_port}"] }'])

    _path: Path = PrivateAttr(default=Path("chaos.toml"))
    _lines: Mapping[str, int] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Target:
        rules.exactly_one(start=self.start, image=self.image, url=self.url)
        if self.ready is None and self.live is None:
            raise wrong("neither live nor ready: nothing says when the target can serve", 'add live = "/healthz"', key="")
        if not self.read:
            what = "no [[target.read]]: without a request that reads the database nothing can be seen of a fault"
            raise wrong(what, 'add [[target.read]] with path = "/items/1"', key="")
        if self.start and "port" not in names_in((self.start, self.env, self.setup)):
            what = "neither start nor env says {port}: the target cannot know where it is to listen"
            raise wrong(what, 'pass it on, for example env = { PORT = "{port}" }', key="start")
        if self.url and (idle := next((key for key in ("env", "setup", "edge") if getattr(self, key)), None)):
            raise wrong(f"{idle} has no effect on a target that is already running (url)", f"remove {idle}", key=idle)
        if self.start and info.context and not self.cwd.is_dir():
            raise wrong(f"cwd is no directory: {self.cwd}", "cwd is relative to the file it stands in", key="cwd")
        return self

    @property
    def host(self) -> str:
        """The Host of the suite's requests; '' when no hosts are listed."""
        return self.hosts.allowed[0] if self.hosts else ""

    def declares(self, table: str) -> bool:
        """Whether the file speaks of `table` ('target.hosts'): a gate that needs an absent one is not applicable.

        A database is spoken of as soon as its address is passed on, with or without [target.database].
        """
        key = table.removeprefix("target.")
        if key == "database":
            return key in self.model_fields_set or bool(DATABASE & names_in((self.start, self.env, self.setup)))
        return bool(getattr(self, key))

    def where(self, key: str) -> str:
        """'chaos.toml:4' for a key of [target], for errors about it that show only at run time."""
        return f"{rules.shown(self._path)}:{self._lines.get(key, self._lines.get('', 1))}"

    def located(self, path: Path, lines: Mapping[str, int]) -> Target:
        """The same target, knowing the lines of its keys ('' is the table's own)."""
        copy = self.model_copy()
        copy._path, copy._lines = path, dict(lines)  # noqa: SLF001  (our own)
        return copy


class Run(Model):
    """[run]. `workers` is None when the machine decides; `replicas` are the instances of the target in `backoff.replicas`, at most."""

    workers: Annotated[int, Field(ge=1)] | None = Field(default=None, examples=["1"])
    replicas: Annotated[int, Field(ge=1, le=40)] | None = Field(default=None, examples=["12"])


class Abort(Model):
    """[environment] abort: what stops a run at once. `error_rate` is a share, `latency` (of the median) and `over` seconds."""

    error_rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(default=None, examples=["0.9"])
    latency: Seconds | None = Field(default=None, examples=["5"])
    over: Seconds = Field(default=10.0, examples=["10"])
    file: Directory | None = Field(default=None, examples=['"/run/stop-chaos"'])
    url: Url | None = Field(default=None, examples=['"https://ops.example.test/stop"'])

    @model_validator(mode="after")
    def _some(self) -> Abort:
        if all(one is None for one in (self.error_rate, self.latency, self.file, self.url)):
            raise wrong("abort without a condition", "give error_rate, latency, file or url", key="")
        return self


class Environment(Model):
    """[environment]: what to use instead of what comes along. With `toxiproxy` and `proxy` a remote one is attached to."""

    fsync: bool = Field(default=False, examples=["true"])
    postgres_bin: Directory | None = Field(default=None, examples=['"/usr/lib/postgresql/17/bin"'])
    toxiproxy: ControlUrl | None = Field(default=None, examples=['"http://toxiproxy.staging.example.test:8474"'])
    proxy: str | None = Field(default=None, min_length=1, examples=['"orders_database"'])
    probe: Annotated[str, AfterValidator(rules.host_and_port)] | None = Field(default=None, examples=['"10.0.0.7:15432"'])
    allow: PlainHosts = Field(default=(), examples=['["staging.example.test"]'])
    abort: Abort | None = Field(default=None, examples=['{ error_rate = 0.9, file = "stop" }'])
    postgres_image: str | None = Field(default=None, min_length=1, examples=['"postgres:17"'])
    toxiproxy_image: str | None = Field(default=None, min_length=1, examples=['"ghcr.io/shopify/toxiproxy:2.12.0"'])
    edge_image: str | None = Field(default=None, min_length=1, examples=['"caddy:2.11"'])
    platform: str | None = Field(default=None, min_length=1, examples=['"linux/amd64"'])
    docker_network: Literal["host", "bridge"] | None = Field(default=None, examples=['"host"'])
    ryuk: bool = Field(default=False, examples=["true"])

    @model_validator(mode="after")
    def _attached(self) -> Environment:
        if (self.toxiproxy is None) != (self.proxy is None):
            given, lacking = ("toxiproxy", "proxy") if self.toxiproxy else ("proxy", "toxiproxy")
            raise wrong(f"{given} without {lacking}", f"add {lacking}: toxiproxy is the server, proxy its name there", key=given)
        if self.probe is not None and self.toxiproxy is None:
            raise wrong("probe without toxiproxy", "probe says where toxiproxy's proxy is reached from here", key="probe")
        return self


class Documents(Model):
    """[documents]: where the review's documents are, and how many days since its last review make one too old."""

    directory: Directory = Field(examples=['"documents"'])
    oldest: Annotated[int, Field(ge=1, le=3660)] = Field(default=180, examples=["180"])


class Config(Model):
    """chaos.toml. `gates`: requirement id -> another limit; `waivers`: requirement id -> why, by whom, until when."""

    target: Target
    run: Run = Run()
    policy: Mapping[str, Literal["reject", "accept", "serve", "report"]] = Field(default={}, examples=['"reject"'])
    waivers: Mapping[str, str] = Field(default={}, examples=['"why, by whom, until when"'])
    gates: Mapping[str, float] = Field(default={}, examples=["200"])
    environment: Environment = Environment()
    documents: Documents | None = None

    _path: Path = PrivateAttr(default=Path("chaos.toml"))

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._path

    def located(self, path: Path, target: Target) -> Config:
        """The same configuration, knowing where it came from."""
        copy = self.model_copy(update={"target": target})
        copy._path = path  # noqa: SLF001  (our own)
        return copy

    @field_validator("policy", "waivers", "gates", mode="before")
    @classmethod
    def _keys(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and info.field_name:
            rules.known_keys(info.field_name, value)
        return value

    @field_validator("waivers", mode="after")
    @classmethod
    def _reasons(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for key, reason in value.items():
            if not re.search(r"\w\W+\w", reason):
                raise wrong(f"{key} is waived without a reason", 'write "why, by whom, until when"', key=key)
        return value


Target.model_rebuild()

"""The reference service with exactly one thing changed: `python one_change.py DEFECT PORT`. Nothing of it is copied."""

import json
import os
import posixpath
import sys
from dataclasses import replace
from functools import partial

from starlette.responses import Response

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector
from chaos.targets.reference.hosts import HostPolicy, Judgement, Surface
from chaos.targets.reference.problems import render
from chaos.targets.reference.settings import Settings

NO_DATABASE = Response(
    b'{"type": "about:blank", "title": "Service Unavailable", "status": 503}',
    503,
    headers={"Content-Type": "application/problem+json", "Retry-After": "1"},
)


def has_connections(pool):
    """Whether there is any connection to the database at the moment."""
    return pool.counts["idle"] + pool.counts["busy"] > 0


def unverified(settings):
    """The chain and the name are not checked; the rest stays as it is."""
    return connector(settings, change={"sslmode": "require", "sslrootcert": "", "channel_binding": "prefer"})


def name_not_checked(settings):
    return build_app(settings, connect=connector(settings, change={"sslmode": "verify-ca"}))


def nothing_verified(settings):
    return build_app(settings, connect=unverified(settings))


def verified_at_start_only(settings):
    first, later = connector(settings), unverified(settings)
    warm = []

    async def connect():
        link = await (later if len(warm) >= settings.pool_size else first)()
        warm.append(True)
        return link

    return build_app(settings, connect=connect)


def plaintext_after_a_failed_handshake(settings):
    strict, plain = connector(settings), connector(settings, change={"sslmode": "disable", "channel_binding": "disable"})

    async def connect():
        try:
            return await strict()
        except Exception as error:
            if "SSL" in str(error) or "certificate" in str(error):
                return await plain()
            raise

    return build_app(settings, connect=connect)


def comes_back_after_half_a_minute(settings):
    return build_app(settings, delay=lambda failures: 30.0 if failures else 0.0)


def dies_with_its_database(settings):
    strict = connector(settings)

    async def connect():
        try:
            return await strict()
        except Exception:  # noqa: BLE001  (whatever it was)
            os._exit(7)

    return build_app(settings, connect=connect)


class Unanchored(HostPolicy):
    """evilapi.example.test ends in api.example.test."""

    def _by_name(self, name, path):
        if any(name.endswith(pattern.lstrip("*.")) for pattern, surface in self.served if surface is Surface.API):
            return Judgement(surface=Surface.API, name=name)
        return super()._by_name(name, path)


class TwoLines(HostPolicy):
    """The last of several Host lines counts."""

    def judge(self, hosts, *, target, path):
        return super().judge(hosts[-1:], target=target, path=path)


class CaseSensitive(HostPolicy):
    """API.example.test is another host."""

    def judge(self, hosts, *, target, path):
        judged = super().judge(hosts, target=target, path=path)
        exact = len(hosts) == 1 and hosts[0].decode("latin-1") == hosts[0].decode("latin-1").lower()
        return judged if exact or judged.reason else replace(judged, reason="unknown")


def with_policy(policy, settings):
    return build_app(settings, hosts=policy.from_settings(settings))


def outside_the_gate(settings):
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/api/items":
            scope = {**scope, "headers": [(n, v if n != b"host" else b"api.example.test") for n, v in scope["headers"]]}
        await inner(scope, receive, send)

    return replace(app, gate=gate)


def refuses_hosts_with_403(settings):
    def rendered(problem, request_id):
        status, headers, body = render(problem, request_id)
        if problem.status == 400 and "host" in problem.code:
            status, body = 403, body.replace(b'"status": 400', b'"status": 403')
        return status, headers, body

    return build_app(settings, rendered=rendered)


PROVIDER = "/provider/v1/items"


def past_the_rules(settings, trusted):
    """Requests that `trusted` takes for somebody else's business get the rights of a provider, and the plain path."""
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and trusted(scope):
            headers = [*scope["headers"], (b"x-api-key", b"demo-provider-key")]
            scope = {**scope, "path": PROVIDER, "raw_path": PROVIDER.encode(), "headers": headers}
        await inner(scope, receive, send)

    return replace(app, gate=gate)


def rights_by_raw_path(settings):
    def trusted(scope):
        return scope["path"] != PROVIDER and posixpath.normpath(scope["path"].replace("//", "/")) == PROVIDER

    return past_the_rules(settings, trusted)


def rights_by_method_override(settings):
    def trusted(scope):
        return scope["path"] == PROVIDER and (b"x-http-method-override", b"OPTIONS") in scope["headers"]

    return past_the_rules(settings, trusted)


def rights_by_forwarded_address(settings):
    def trusted(scope):
        return scope["path"] == PROVIDER and (b"x-forwarded-for", b"127.0.0.1") in scope["headers"]

    return past_the_rules(settings, trusted)


def not_found_in_plain_text(settings):
    def rendered(problem, request_id):
        if problem.status == 404:
            return 404, [(b"content-type", b"text/plain")], b"nothing here"
        return render(problem, request_id)

    return build_app(settings, rendered=rendered)


def status_member_lies(settings):
    def rendered(problem, request_id):
        status, headers, body = render(problem, request_id)
        body = json.dumps({**json.loads(body), "status": 200}).encode()
        return status, [(n, v if n != b"content-length" else str(len(body)).encode()) for n, v in headers], body

    return build_app(settings, rendered=rendered)


def asks_the_database_before_it_validates(settings):
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/api/") and not has_connections(app.pool):
            await NO_DATABASE(scope, receive, send)
            return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


def liveness_asks_the_database(settings):
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/healthz" and not has_connections(app.pool):
            await NO_DATABASE(scope, receive, send)
            return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


DEFECTS = {
    one.__name__: one
    for one in (
        name_not_checked,
        nothing_verified,
        verified_at_start_only,
        plaintext_after_a_failed_handshake,
        comes_back_after_half_a_minute,
        dies_with_its_database,
        outside_the_gate,
        refuses_hosts_with_403,
        rights_by_raw_path,
        rights_by_method_override,
        rights_by_forwarded_address,
        not_found_in_plain_text,
        status_member_lies,
        asks_the_database_before_it_validates,
        liveness_asks_the_database,
    )
} | {
    "suffix_not_anchored": partial(with_policy, Unanchored),
    "last_host_line_counts": partial(with_policy, TwoLines),
    "host_case_matters": partial(with_policy, CaseSensitive),
}

if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve(DEFECTS[sys.argv[1]](made), made))

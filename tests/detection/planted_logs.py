"""The reference service with one thing wrong in what it says of itself: `python planted_logs.py DEFECT PORT`."""

import base64
import json
import os
import sys
import traceback
import uuid
from dataclasses import replace

import structlog
from starlette.responses import Response

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.settings import Settings
from chaos.targets.reference.telemetry import privacy_filter

ERROR = 400


def logger(*changes, render=None):
    """The service's own logger, with a step more before the line is rendered."""
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.stdout),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            privacy_filter,
            *changes,
            render or structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )


def changed(change):
    """A service whose lines go through `change(event)`."""

    def step(_logger, _method, event):
        change(event)
        return event

    return lambda settings: build_app(settings, log=logger(step))


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def around(wrap):
    """A service whose gate is wrapped: `wrap(inner)` is an ASGI application."""

    def made(settings):
        app = build_app(settings)
        return replace(app, gate=wrap(app.gate))

    return made


# -- lines ----------------------------------------------------------------------------------------------------------------------


def no_request_id_on_errors(event):
    if event.get("status", 0) >= ERROR:
        event.pop("request_id", None)


def one_host_for_all(event):
    if event["event"] == "request":
        event["host"] = "api.example.test"


def no_cipher(event):
    event.pop("tls_cipher", None)


def version_made_up(event):
    if "tls_version" in event:
        event["tls_version"] = "TLSv1.2"


def upstream_by_name(event):
    if "upstream_ip" in event:
        event["upstream_ip"] = "localhost"


def no_code_on_errors(event):
    event["error_code"] = ""


def every_request_has_a_code(event):
    event["error_code"] = "E0001"


def refusals_like_any_request(event):
    """No audit entry, and a request's line that says nothing of a refusal."""
    if event.get("audit"):
        raise structlog.DropEvent
    if event.get("error_code") == "host_not_allowed":
        for name in ("status", "route"):
            event.pop(name, None)
        event["error_code"] = ""


def errors_in_plain_text(settings):
    def render(_logger, _method, event):
        if event.get("status", 0) >= ERROR:
            return f"{event['level']} {event['method']} {event['route']} {event['status']} id={event['request_id']}"
        return json.dumps(event)

    return build_app(settings, log=logger(render=render))


def members_by_hand(settings):
    """JSON put together as text."""
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        agent = next((v for n, v in scope.get("headers", ()) if n == b"user-agent"), b"").decode("latin-1")
        sys.stdout.write('{"event": "agent", "agent": "' + agent + '"}\n')
        sys.stdout.flush()
        await inner(scope, receive, send)

    return replace(app, gate=gate)


# -- what is private ------------------------------------------------------------------------------------------------------------


def logs_queries(inner):
    async def gate(scope, receive, send):
        say(event="asked", query=scope["query_string"].decode("latin-1"))
        await inner(scope, receive, send)

    return gate


def logs_bodies_in_base64(inner):
    async def gate(scope, receive, send):
        async def heard():
            message = await receive()
            if message.get("body"):
                say(event="body", body=base64.b64encode(b"v1:" + message["body"]).decode())
            return message

        await inner(scope, heard, send)

    return gate


def traceback_with_headers(inner):
    """Only when it fails: nothing is wrong in the steady state."""

    async def gate(scope, receive, send):
        async def watched(message):
            if message.get("status", 0) >= 500:
                try:
                    raise RuntimeError(f"failed for {dict(scope['headers'])}")  # noqa: TRY301  (as services do)
                except RuntimeError:
                    sys.stdout.write(traceback.format_exc())
                    sys.stdout.flush()
            await send(message)

        await inner(scope, receive, watched)

    return gate


def answers_another_id(inner):
    async def gate(scope, receive, send):
        async def stamped(message):
            if "headers" in message:
                other = (b"x-request-id", uuid.uuid4().hex.encode())
                message["headers"] = [other if name == b"x-request-id" else (name, value) for name, value in message["headers"]]
            await send(message)

        await inner(scope, receive, stamped)

    return gate


def says_where_its_database_is(settings):
    say(event="configured", database=os.environ["DATABASE_URL"])
    return build_app(settings)


# -- metrics --------------------------------------------------------------------------------------------------------------------


class Still:
    """A metric that nothing moves."""

    def labels(self, *_values, **_names):
        return self

    def inc(self, *_amount):
        """Do nothing."""

    def observe(self, *_value):
        """Do nothing."""


def still(name):
    def made(settings):
        app = build_app(settings)
        metric = getattr(app.reporter.metrics, name)
        metric.labels(*("none" for _ in metric._labelnames)) if metric._labelnames else None
        setattr(app.reporter.metrics, name, Still())
        return app

    return made


def errors_not_counted(settings):
    app = build_app(settings)
    metrics = app.reporter.metrics
    counted = metrics.requests

    class Good(Still):
        def labels(self, route, method, status):
            return self if int(status) >= ERROR else counted.labels(route, method, status)

    metrics.requests = Good()
    return app


def pool_gauge_stuck(settings):
    app = build_app(settings)
    for state, value in (("idle", settings.pool_size), ("busy", 0)):
        app.reporter.metrics.pool.labels(state).set_function(lambda value=value: value)
    return app


def metrics_ask_the_database(settings):
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope.get("path") == "/metrics" and not app.pool.counts["idle"] + app.pool.counts["busy"]:
            await Response("no database", 500)(scope, receive, send)
            return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


def serving(body):
    def wrap(inner):
        async def gate(scope, receive, send):
            if scope.get("path") == "/metrics":
                await Response(body(), media_type="text/plain; version=0.0.4")(scope, receive, send)
                return
            await inner(scope, receive, send)

        return gate

    return around(wrap)


DEFECTS = {
    **{
        one.__name__: changed(one)
        for one in (
            no_request_id_on_errors,
            one_host_for_all,
            no_cipher,
            version_made_up,
            upstream_by_name,
            no_code_on_errors,
            every_request_has_a_code,
            refusals_like_any_request,
        )
    },
    **{one.__name__: around(one) for one in (logs_queries, logs_bodies_in_base64, traceback_with_headers, answers_another_id)},
    **{
        one.__name__: one
        for one in (
            errors_in_plain_text,
            members_by_hand,
            says_where_its_database_is,
            errors_not_counted,
            pool_gauge_stuck,
            metrics_ask_the_database,
        )
    },
    "unknown_hosts_not_counted": still("unknown_hosts"),
    "latency_stands_still": still("seconds"),
    "tls_failures_not_counted": still("failures"),
    "metrics_are_a_page": serving(lambda: "<!doctype html><title>metrics</title><p>requests: 12"),
    "metrics_have_no_end": serving(lambda: "".join(f'x{{n="{number}"}} 1\n' for number in range(3_500_000))),
    "none": build_app,
}

if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve(DEFECTS[sys.argv[1]](made), made))

"""One request of the suite, against sockets that answer, hang up or stay silent."""

import asyncio
from types import SimpleNamespace

import pytest

from chaos.config import Request
from chaos.model import Kind, now
from chaos.traffic.driver import StallMeter
from chaos.traffic.requests import Sample, Session, multiplicity, send

SAMPLE = Sample(kind=Kind.READ, key="read[0]", request=Request(path="/x"))


def ask(answer, *, deadline=5.0, stalled=0.0):
    """The operation that comes of one request to a server which does `answer(reader, writer)`."""

    async def go():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = SimpleNamespace(hosts=None, headers={})
        session = Session(target, f"http://127.0.0.1:{port}", {})
        async with server:
            done = await send(session, SAMPLE, deadline=deadline, stall=lambda _start, _end: stalled)
            await asyncio.sleep(0.05)  # the server's side ends as well
            return done

    return asyncio.run(go())


async def silent(reader, writer):
    await reader.read()
    writer.close()


async def hangs_up(_reader, writer):
    writer.close()


async def answers(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy")
    await writer.drain()
    writer.close()


def test_an_answer_is_recorded_as_it_came():
    done = ask(answers)
    assert (done.status, done.ok, done.retry_after, done.body, done.error) == (503, False, "2", "busy", "")


def test_nobody_listens_or_somebody_hangs_up():
    done = ask(hangs_up)
    assert (done.status, done.ok) == (None, False)
    assert done.error in {"closed", "reset"}


def test_silence_ends_at_the_deadline():
    done = ask(silent, deadline=0.3)
    assert (done.status, done.error) == (None, "timeout")
    assert 0.3 <= done.finished - done.started < 3.0
    assert done.lag == 0.0


def test_the_machines_own_stalls_do_not_count():
    """What never answers is waited for that much longer, so that it is still late when the stall has been taken off."""
    done = ask(silent, deadline=0.4, stalled=0.3)
    assert done.finished - done.started >= 0.7
    assert done.seconds >= 0.4


def test_a_machine_that_stands_still_is_not_waited_for_without_end():
    begun = now()
    done = ask(silent, deadline=0.3, stalled=1000.0)
    assert done.error == "timeout"
    assert now() - begun < 5.0


def test_stalls_are_counted_inside_the_span_only():
    meter = StallMeter()
    meter._stalls = [(10.0, 0.5), (20.0, 1.0)]
    assert meter.between(0.0, 30.0) == pytest.approx(1.5)
    assert meter.between(10.25, 20.5) == pytest.approx(0.75)
    assert meter.between(11.0, 12.0) == 0.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"name": "u1"}, {"name": "u2"}]', (1, "list")),
        ('{"items": [{"name": "u1", "link": "/u1"}, {"name": "u1"}], "next": null}', (2, "list")),
        ('{"name": "u1", "link": "/x/u1"}', (2, "text")),
        ("<li>u1</li>", (1, "text")),
        ("[]", (0, "text")),
    ],
)
def test_how_often_a_write_is_found(text, found):
    assert multiplicity(text, "u1") == found

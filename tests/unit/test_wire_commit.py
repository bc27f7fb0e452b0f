"""Which of a server's answers tell of a commit, in whatever portions they come."""

import random

import pytest

from chaos.checks import commits, judge
from chaos.checks.limits import Limits
from chaos.faults.wire.commit import Answers
from chaos.faults.wire.protocol import message
from chaos.model import Effect, History, Kind, Operation, Outcome, Window


def tag(text):
    return message(b"C", text.encode() + b"\0")


def ready(status="I"):
    return message(b"Z", status.encode())


ERROR = message(b"E", b"SERROR\0\0")
ROW = message(b"D", b"\0\1\0\0\0\1x")
HELLO = message(b"R", b"\0\0\0\0") + message(b"S", b"server_version\x0017\0") + ready()
COMMITS = {
    "a statement by itself, simple protocol": [tag("INSERT 0 1"), ready()],
    "a statement by itself, extended protocol": [message(b"1", b""), message(b"2", b""), ROW, tag("UPDATE 2"), ready()],
    "a transaction": [
        tag("BEGIN"),
        ready("T"),
        tag("INSERT 0 1"),
        ready("T"),
        tag("SELECT 1"),
        ready("T"),
        tag("COMMIT"),
        ready(),
    ],
    "a transaction in one message": [tag("BEGIN"), tag("DELETE 1"), tag("COMMIT"), ready()],
    "MERGE": [tag("MERGE 1"), ready()],
}
NONE = {
    "a read": [ROW, tag("SELECT 1"), ready()],
    "nothing changed": [tag("UPDATE 0"), ready()],
    "a transaction that only read": [tag("BEGIN"), ready("T"), tag("SELECT 1"), ready("T"), tag("COMMIT"), ready()],
    "rolled back": [tag("BEGIN"), ready("T"), tag("INSERT 0 1"), ready("T"), tag("ROLLBACK"), ready()],
    "failed": [tag("BEGIN"), ready("T"), tag("INSERT 0 1"), ready("T"), ERROR, ready("E"), tag("ROLLBACK"), ready()],
    "failed at COMMIT (a deferred constraint)": [tag("BEGIN"), ready("T"), tag("INSERT 0 1"), ready("T"), ERROR, ready()],
    "failed by itself": [tag("INSERT 0 1"), ERROR, ready()],
    "still inside": [tag("BEGIN"), ready("T"), tag("INSERT 0 1"), ready("T")],
}


def fed(answers, messages, *, hold, rng):
    """What passed, with the stream in portions of some bytes; ends when a commit is held back."""
    stream, passed = b"".join(messages), b""
    while stream:
        size = rng.randint(1, 40)
        passed += answers.feed(stream[:size], hold=hold)
        stream = stream[size:]
        if answers.committed:
            break
    return passed


@pytest.mark.parametrize("name", COMMITS)
@pytest.mark.parametrize("seed", range(5))
def test_a_commit_is_held_back_from_the_statement_that_ends_it(name, seed):
    answers, rng = Answers(), random.Random(seed)
    passed = fed(answers, [HELLO, *COMMITS[name]], hold=True, rng=rng)
    assert answers.committed
    assert passed.startswith(HELLO)
    assert tag("COMMIT") not in passed
    assert passed + answers.release() == HELLO + b"".join(COMMITS[name])


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("seed", range(5))
def test_anything_else_passes_whole(name, seed):
    answers, rng = Answers(), random.Random(seed)
    assert fed(answers, [HELLO, *NONE[name]], hold=True, rng=rng) == HELLO + b"".join(NONE[name])
    assert not answers.committed


@pytest.mark.parametrize("name", [*COMMITS, *NONE])
def test_nothing_is_held_back_while_the_fuse_is_not_armed(name):
    messages = {**COMMITS, **NONE}[name]
    answers = Answers()
    assert fed(answers, messages, hold=False, rng=random.Random(1)) == b"".join(messages)
    assert not answers.committed


def test_a_commit_that_went_through_is_not_the_next_ones():
    answers, rng = Answers(), random.Random(1)
    fed(answers, COMMITS["a transaction"], hold=False, rng=rng)
    assert fed(answers, NONE["a read"], hold=True, rng=rng) == b"".join(NONE["a read"])


def operation(kind, unique, *, status=201, occurrences=-1):
    ok = status is not None and status < 300
    return Operation(
        kind=kind, method="POST", path="/x", sample="write[0]", started=1.0, finished=1.1, status=status, ok=ok, unique=unique,
        occurrences=occurrences, error="" if status else "timeout",
    )  # fmt: skip


def found(*operations, hits=1, **facts):
    history = History(
        experiment="commit-cut",
        started=0.0,
        windows=(Window(fault="commit-cut", scope="", injected=0.5, healed=0.9, effect=Effect(took=hits > 0, seen="x")),),
        operations=operations,
        facts={"gate": "res.durability", "family": "commit-cut", "hits": str(hits), "once.write[0]": "1", **facts},
    )
    return judge(history, Limits(schema=None))[0]


@pytest.mark.parametrize(
    ("status", "times", "outcome"),
    [
        (201, 1, Outcome.PASS),  # it found out
        (503, 1, Outcome.PASS),  # it said that it does not know
        (201, 2, Outcome.FAIL),  # it wrote again
        (503, 2, Outcome.FAIL),
        (201, 0, Outcome.FAIL),  # it said done, and it is not
        (409, 1, Outcome.FAIL),  # it met its own first write
    ],
)
def test_what_became_of_the_write(status, times, outcome):
    one = found(operation(Kind.WRITE, "u", status=status), operation(Kind.READ_BACK, "u", status=200, occurrences=times))
    assert (one.outcome, one.n, one.check) == (outcome, 1, "commit-cut")


def test_no_hit_proves_nothing():
    one = found(operation(Kind.WRITE, "u"), operation(Kind.READ_BACK, "u", status=200, occurrences=1), hits=0)
    assert (one.outcome, one.n) == (Outcome.INCONCLUSIVE, 0)


def test_nothing_looked_up_proves_nothing():
    assert (
        commits.check(History(experiment="commit-cut", started=0.0, facts={"hits": "3"}), Limits()).outcome
        is Outcome.INCONCLUSIVE
    )

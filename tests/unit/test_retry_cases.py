"""The situations that urllib3's own suite tries on Retry and Retry-After, put to our functions.

The tables are ours; a comment that begins with "ours:" marks where we differ on purpose.
"""

import time

import pytest

from support.simulated import Answer, Simulation
from yelpaze import MisuseError, Retry, delete, get, head, patch, post, put, request
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.policy.retry import pause, retry_after_seconds, worth_retrying

URL = "http://10.0.0.1/x"
NOW = 1_559_559_600.0  # Monday, 3 June 2019, 11:00:00 GMT
GET, POST = get(URL), post(URL)
OPTIONS, TRACE = request("OPTIONS", URL), request("TRACE", URL)
TEAPOT = Retry(statuses={418})
ALL_5XX = Retry(statuses=range(500, 600))
ANY_METHOD = Retry(methods={"GET", "POST", "PATCH"})
ONLY_POST = Retry(methods={"POST"}, statuses={418, 500, 503})


# ── whether ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("happened", "sent", "policy", "again"),
    [
        # nothing reached the server: the method does not matter
        ("timeout.connect", GET, Retry(), True),
        ("timeout.connect", POST, Retry(), True),
        ("connect", patch(URL), Retry(), True),
        ("dns", GET, Retry(), True),
        ("dns", POST, Retry(methods=()), True),
        ("dns", GET, Retry(errors={"connect"}), False),
        ("connect", GET, Retry(errors=()), False),
        # the request was on its way
        ("timeout.first_byte", GET, Retry(), True),
        ("timeout.first_byte", POST, Retry(), False),
        ("timeout.first_byte", POST, ANY_METHOD, True),
        ("timeout.first_byte", GET, Retry(errors={"dns", "connect"}), False),
        ("timeout.attempt", put(URL), Retry(), True),
        ("timeout.attempt", patch(URL), Retry(), False),
        ("protocol", delete(URL), Retry(), True),
        ("protocol", POST, Retry(), False),
        # ours: a certificate that is wrong now is wrong in a second too, unless one says so
        ("tls", GET, Retry(), False),
        ("tls", GET, Retry(errors={"tls"}), True),
        # what ended by a policy or the caller stays ended
        ("timeout.deadline", GET, Retry(), False),
        ("too_large", GET, Retry(), False),
        ("breaker_open", GET, Retry(), False),
        ("cancelled", GET, Retry(), False),
        # statuses of our own choice
        (400, GET, ALL_5XX, False),
        (500, GET, ALL_5XX, True),
        (599, GET, ALL_5XX, True),
        (400, GET, TEAPOT, False),
        (418, GET, TEAPOT, True),
        (418, GET, Retry(statuses=[418]), True),
        (418, GET, Retry(statuses={202}), False),
        (500, GET, Retry(statuses=()), False),
        (418, GET, Retry(), False),
        (404, GET, Retry(), False),
        (501, GET, Retry(), False),
        # ours: these five are the default, urllib3 has none
        *((status, GET, Retry(), True) for status in (429, 500, 502, 503, 504)),
        # a method and a status must both be right
        *((418, sent, TEAPOT, True) for sent in (head(URL), put(URL), delete(URL), OPTIONS, TRACE)),
        (418, POST, TEAPOT, False),
        (418, patch(URL), TEAPOT, False),
        (418, GET, ONLY_POST, False),
        (418, POST, ONLY_POST, True),
        (500, POST, ANY_METHOD, True),
        (500, GET, Retry(methods=()), False),  # ours: an empty set is none, not all
        (500, request("post", URL), ONLY_POST, True),
        (500, request("PURGE", URL), Retry(), False),
        (500, request("PURGE", URL), Retry(methods={"PURGE"}), True),
        # ours: the request itself knows better than the policy
        (500, get(URL, idempotent=False), ANY_METHOD, False),
        (500, post(URL, idempotent=True), Retry(methods={"GET"}), True),
        (500, post(URL, idempotency_key="k"), Retry(methods={"GET"}), True),
        # ours: 429 and 503 say that nothing was done, so any method goes again
        (429, POST, Retry(), True),
        (503, POST, Retry(), True),
        (503, GET, ONLY_POST, True),
        (503, POST, TEAPOT, False),
        # ours: 413 is about the request, which would be as large again
        (413, GET, Retry(), False),
        (413, GET, Retry(statuses={413}), True),
        # ours: with a key, 409 says that the first is still under way
        (409, post(URL, idempotency_key="k"), Retry(), True),
        (409, POST, Retry(), False),
    ],
)
def test_whether_to_try_again(happened, sent, policy, again):
    by_status = isinstance(happened, int)
    decision = worth_retrying(
        policy,
        replayable=policy.replayable(sent),
        keyed=sent.has_idempotency_key,
        status=happened if by_status else 0,
        error=Error(ErrorKind.STATUS if by_status else ErrorKind(happened), ""),
    )
    assert decision == again


# ── how often ───────────────────────────────────────────────────────────────────────

NO_ROUTE, CUT, OK = Answer(0, code=7), Answer(0, code=56), Answer(200)
HOME = Answer(303, headers="Location: /home\r\n")


def play(answers, sent=GET, **options):
    """The outcome where a server gives these answers, the last for ever, and when it was asked."""
    left = list(answers)
    sim = Simulation(lambda *_: left.pop(0) if len(left) > 1 else left[0], breaker=None, **options)
    return sim.run(lambda engine: engine.send(sent)), sim.times


@pytest.mark.parametrize(
    ("policy", "answers", "statuses"),
    [
        # ours: attempts count the first one too, so none to spare is 1
        (Retry(attempts=1), [Answer(500)], [500]),
        (Retry(attempts=2), [Answer(500)], [500, 500]),
        (Retry(attempts=11, base=0), [Answer(500)], [500] * 11),
        (None, [Answer(500)], [500]),
        (None, [NO_ROUTE], [0]),
        (ALL_5XX, [OK], [200]),
        (Retry(statuses={200}), [OK], [200]),  # ours: a success is never tried again, but by `when`
        (Retry(when=lambda outcome: outcome.status == 200), [OK, Answer(404)], [200, 404]),
        (Retry(attempts=2, statuses={418}), [Answer(418), OK], [418, 200]),
        (Retry(attempts=3, statuses={418}), [Answer(418), OK], [418, 200]),
        (Retry(attempts=2, statuses={202}), [Answer(418), OK], [418]),
        # ours: one count for failures of all kinds
        (Retry(attempts=3), [NO_ROUTE, CUT, OK], [0, 0, 200]),
        (Retry(attempts=3), [NO_ROUTE, Answer(502), CUT], [0, 502, 0]),
        (Retry(attempts=2), [NO_ROUTE, CUT, OK], [0, 0]),
        # ours: a redirect is no retry, and begins a new count
        (Retry(attempts=1), [HOME, OK], [303, 200]),
        (Retry(attempts=2), [Answer(500), HOME, Answer(500), OK], [500, 303, 500, 200]),
        (Retry(attempts=1), [HOME, Answer(500), OK], [303, 500]),
    ],
)
def test_how_many_attempts(policy, answers, statuses):
    outcome, _ = play(answers, retry=policy)
    assert [attempt.status for attempt in outcome.attempts] == statuses
    assert outcome.ok == (statuses[-1] == 200)


@pytest.mark.parametrize(
    ("answer", "most", "attempts"),
    [
        (HOME, 0, 1),
        (HOME, 3, 4),
        (Answer(303, headers="Location: ftp://a/\r\n"), 3, 1),
    ],
)
def test_a_redirect_not_followed_is_final(answer, most, attempts):
    outcome, _ = play([answer], max_redirects=most)
    assert len(outcome.attempts) == attempts


def test_a_policy_serves_many_requests():
    policy = Retry(attempts=2, statuses={418}, base=0)
    for _ in range(3):
        outcome, _ = play([Answer(418), OK], retry=policy)
        assert outcome.ok


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(attempts=0),
        lambda: Retry(attempts=-1),
        lambda: Retry(statuses="418"),
        lambda: Retry(methods="POST"),
        lambda: Retry(base=-0.1),
        lambda: Retry(cap=float("nan")),
        lambda: Retry(retry_after_cap=-1),
        lambda: Retry(attempts=float("nan")),
        lambda: Retry(attempts=1.5),
        lambda: Retry(attempts="3"),
        lambda: Retry(statuses=418),
        lambda: Retry(statuses=None),
        lambda: Retry(statuses={"418"}),
    ],
)
def test_policies_that_make_no_sense(make):
    with pytest.raises(MisuseError):
        make()


# ── how long ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "longest"),
    [
        # ours: from the first retry on, and anything between nothing and this (full jitter)
        (Retry(base=0.2), [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20]),
        (Retry(base=0.2, cap=120), [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 120, 120]),
        (Retry(base=0.2, cap=1), [0.4, 0.8, 1, 1]),
        (Retry(base=5, cap=1), [1, 1]),
        (Retry(base=0), [0, 0, 0]),
        (Retry(cap=0), [0, 0, 0]),
    ],
)
def test_pauses_grow_up_to_the_cap(policy, longest):
    def pauses(uniform):
        numbers = range(1, len(longest) + 1)
        return [pause(policy, attempt=n, retry_after=None, uniform=uniform) for n in numbers]

    assert pauses(max) == pytest.approx(longest)
    assert pauses(min) == [0] * len(longest)
    assert pauses(lambda low, high: (low + high) / 2) == pytest.approx([most / 2 for most in longest])


@pytest.mark.parametrize("attempt", [60, 61, 1100, 10**9])
def test_late_pauses_do_not_overflow(attempt):
    assert pause(Retry(), attempt=attempt, retry_after=None, uniform=max) == 20
    assert pause(Retry(cap=float("inf")), attempt=attempt, retry_after=None, uniform=max) < float("inf")


@pytest.mark.parametrize(
    ("policy", "asked", "seconds"),
    [
        (Retry(), 0.0, 0),
        (Retry(), 7.0, 7),
        (Retry(cap=1), 7.0, 7),  # the cap is for pauses of our own
        (Retry(), 300.0, 300),
        (Retry(), 301.0, 300),  # ours: five minutes at most where urllib3 grants six hours
        (Retry(), 9_999_999_999.0, 300),
        (Retry(), float("inf"), 300),
        (Retry(retry_after_cap=21_600), 3600.0, 3600),
        (Retry(retry_after_cap=21_600), 21_601.0, 21_600),
        (Retry(retry_after_cap=1), 1.0, 1),
        (Retry(retry_after_cap=1), 2.0, 1),
        (Retry(retry_after_cap=0), 3600.0, 0),  # ours: the way to disregard it, and then no jitter either
    ],
)
@pytest.mark.parametrize("uniform", [min, max])
def test_retry_after_is_taken_as_it_is(policy, asked, seconds, uniform):
    assert pause(policy, attempt=3, retry_after=asked, uniform=uniform) == seconds


# ── Retry-After ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("1000", 1000),
        ("3600", 3600),
        ("\t42 ", 42),
        ("007", 7),
        ("9999999999", 9_999_999_999),
        ("9" * 15, 10**15 - 1),
        ("9" * 16, float("inf")),
        ("9" * 5000, float("inf")),
        # the three forms of RFC 9110 §5.6.7
        ("Mon, 03 Jun 2019 11:30:12 GMT", 1812),
        ("Monday, 03-Jun-19 11:30:12 GMT", 1812),
        ("Mon Jun  3 11:30:12 2019", 1812),
        # nearly those
        ("Mon, 3 Jun 2019 12:00:00 UTC", 3600),
        ("mon, 03 jun 2019 11:30:12 gmt", 1812),
        ("Sun, 03 Jun 2019 11:30:12 GMT", 1812),  # it was a Monday
        ("Mon 03 Jun 2019 11:30:12 GMT", 1812),
        ("03 Jun 2019 11:30:12 GMT", 1812),
        ("Mon, 03 Jun 2019 11:30:12", 1812),
        ("Mon, 03 Jun 2019 11:30:12 -0000", 1812),
        ("Mon, 03 Jun 2019 13:30:12 +0200", 1812),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799 - NOW),
        # gone by
        ("Mon, 3 Jun 2019 11:00:00 UTC", 0),
        ("Mon, 03 Jun 2019 10:59:59 GMT", 0),
        ("Mon, 03 Jun 2019 11:30:12 +0100", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        # ours: what is neither form is no Retry-After, where urllib3 raises
        *((field, None) for field in ("-1", "+1", "1.0", "\xb2", "\u0663", "", " ", "1e3", "0x10")),
        *((field, None) for field in ("5, 5", "10 s", "3 4", '"5"', "soon", "nan", "inf", "-5 Jun 2019")),
        ("2019-06-03T11:30:12Z", None),
        ("Mon, 03 Jun 2019", None),
        ("Thu, 31 Feb 2019 11:30:12 GMT", None),
        ("Mon, 03 Jun 2019 25:30:12 GMT", None),
        ("Mon, 03 Jun 2019 11:30:12 +9999", None),
    ],
)
def test_retry_after_in_seconds(field, seconds):
    assert retry_after_seconds(field, wall=NOW) == seconds


@pytest.fixture
def zone(request, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC", "XXX-02:00", "XXX+05:30"], indirect=True)
@pytest.mark.parametrize("field", ["Mon, 03 Jun 2019 11:30:12 GMT", "Mon Jun  3 11:30:12 2019"])
def test_dates_do_not_depend_on_where_we_are(zone, field):
    assert retry_after_seconds(field, wall=NOW) == 1812


SEVEN = "Retry-After: 7\r\n"


@pytest.mark.parametrize(
    ("policy", "sent", "first", "waited"),
    [
        (Retry(), GET, Answer(429, headers=SEVEN), 7),
        (Retry(), GET, Answer(503, headers=SEVEN), 7),
        (Retry(), POST, Answer(503, headers=SEVEN), 7),
        (Retry(retry_after_cap=2), GET, Answer(503, headers=SEVEN), 2),
        (Retry(base=0), GET, Answer(503, headers="Retry-After: soon\r\n"), 0),
        (Retry(base=0), GET, Answer(503, headers="Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n"), 0),
        # ours: whatever answer is worth another try may say when, not only those two
        (Retry(), GET, Answer(500, headers=SEVEN), 7),
        (TEAPOT, GET, Answer(418, headers=SEVEN), 7),
        # the field alone makes no answer worth another try
        (Retry(), GET, Answer(418, headers=SEVEN), None),
        (Retry(), POST, Answer(500, headers=SEVEN), None),
        (Retry(), GET, Answer(413, headers=SEVEN), None),  # ours: see above
        (None, GET, Answer(503, headers=SEVEN), None),
        (Retry(), get(URL, retry=False), Answer(429, headers=SEVEN), None),
        (Retry(), GET, Answer(303, headers=SEVEN + "Location: /home\r\n"), 7),
    ],
)
def test_retry_after_counts_where_there_is_another_try(policy, sent, first, waited):
    outcome, times = play([first, OK], sent, retry=policy)
    assert outcome.ok == (waited is not None)
    assert times[1:] == ([] if waited is None else [pytest.approx(waited + 0.01, abs=1e-6)])

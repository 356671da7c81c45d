"""The progress line: what it says, what fits, and the time left."""

import pytest

from yelpaze.cli.running import counted
from yelpaze.jobs import progress
from yelpaze.jobs.progress import Progress


class View:
    title, unit = "offers", "rows"
    has_begun = False

    def __init__(self, *, total=1000.0, before=0):
        self.total, self.before = total, before
        self.position, self.done, self.requests = float(before), before, 0
        self.failures = {}
        self.failed = 0
        self.said = []

    def notes(self):
        return self.said


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be put forward."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def begun(view):
    shown = Progress(view)
    view.has_begun = True
    assert shown._begun()
    return shown


def test_all_of_it(clock):
    view = View()
    shown = begun(view)
    clock[0] += 10
    view.done, view.position, view.requests = 200, 200.0, 900
    view.failures, view.failed = {"status 422": 7, "timeout.attempt": 1}, 8
    assert shown.text() == (
        "200 rows · 20 rows/s · 90 requests/s · 8 failed (status 422: 7, timeout.attempt: 1) · 40s left"
    )


@pytest.mark.parametrize("width", [*range(36, 90), None])
def test_a_host_that_is_away_comes_before_anything_else(clock, width):
    view = View()
    shown = begun(view)
    clock[0] += 10
    view.done, view.position, view.failed, view.said = (
        200,
        200.0,
        8,
        ["a.test:80 away for 20s", "b.test:80 away for 9s"],
    )
    text = shown.text(width=width)
    assert "a.test:80 away for 20s" in text
    assert "20 rows/s" in text
    assert "left" not in text  # nobody knows


@pytest.mark.parametrize("width", range(160))
def test_what_matters_least_goes_first(clock, width):
    view = View()
    shown = begun(view)
    clock[0] += 10
    view.done, view.position, view.requests = 200, 200.0, 900
    view.failures, view.failed = {"status 422": 8}, 8
    text = shown.text(width=width)
    assert len(text) <= width
    wanted = ["20 rows/s", "8 failed", "40s left"]
    if width >= len(" · ".join(wanted)):
        assert all(part in text for part in wanted)
    if width >= len("20 rows/s · 8 failed"):
        assert "8 failed" in text
    if "requests/s" in text:
        assert "200 rows · " in text


def test_the_time_left_after_a_resume_goes_by_this_session(clock):
    view = View(before=800)
    shown = begun(view)
    clock[0] += 10
    view.done = view.position = 900
    assert shown.text(width=40).endswith("10s left")


def test_workers_that_take_long_to_start_do_not_count(clock):
    view = View()
    shown = Progress(view)
    assert not shown._begun()
    clock[0] += 60
    view.has_begun = True
    assert shown._begun()
    clock[0] += 10
    view.done = view.position = 500
    assert shown.text() == "500 rows · 50 rows/s · 0 requests/s · 10s left"


def test_plurals():
    assert [counted(count, "row") for count in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]

"""What the progress display shows of a fetch."""

from collections import Counter
from types import SimpleNamespace

from yelpaze.cli.outcomes import View


def fetch(source=None):
    tally = SimpleNamespace(
        done=30, failed=4, skipped=10, kinds=Counter({"status 404": 3, "connect": 1}), bytes=2048
    )
    engine = SimpleNamespace(statistics=lambda by_host: SimpleNamespace(attempts=55), troubles=dict)
    job = SimpleNamespace(tally=tally)
    return SimpleNamespace(job=job, engine=engine, source=source, total=80, lines_read=50)


def test_urls_of_the_command_line_are_counted():
    view = View(fetch())
    assert (view.total, view.position, view.done, view.requests) == (80, 40, 40, 55)
    assert view.notes() == []
    assert view.failures == {"status 404": 3, "connect": 1}


def test_lines_of_a_file_are_measured_by_its_size():
    view = View(fetch(SimpleNamespace(size=1000, position=500)))
    assert (view.total, view.position) == (1000, 400.0)

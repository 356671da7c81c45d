"""Commits: what must hold when one fails, or never comes."""

import pytest

from yelpaze.io.file_sink import FileSink
from yelpaze.io.jsonl import JsonlLayout
from yelpaze.io.protocol import Checkpoint
from yelpaze.jobs.committer import Committer


class Sink:
    """Its first commit fails; the database is back for the next."""

    def __init__(self):
        self.waiting = 0
        self.commits = []

    def commit(self, checkpoint, *, is_last=False):
        def work():
            self.commits.append(checkpoint)
            if len(self.commits) == 1:
                raise RuntimeError("away")

        return work


async def test_after_a_commit_that_failed_there_is_no_other():
    sink, told = Sink(), []
    checkpoint = Checkpoint(run="r", identity={})
    committer = Committer(
        sink, lambda _: checkpoint, seconds=60, after=lambda: told.append(1), on_error=told.append
    )
    with pytest.raises(RuntimeError):
        await committer.commit()
    # What the first had taken is lost: to commit its progress now would skip those rows for ever.
    await committer.commit(is_finished=True, is_last=True)
    assert len(sink.commits) == 1
    assert not told


def begun(path):
    sink = FileSink(JsonlLayout(path), path.with_name("out.failures.jsonl"), shown=("out", "failures"))
    assert sink.checkpoint() is None
    return sink


def test_what_a_run_wrote_before_its_first_commit_counts_is_its_own(tmp_path):
    path = tmp_path / "out.jsonl"
    killed = begun(path)
    assert killed.damage() is None
    killed.resume()
    path.write_text('{"row":1,"result":1}\n')  # and then it ends, before the journal's line
    killed.close()

    sink = begun(path)
    assert sink.damage() is None
    sink.resume()
    assert path.read_text() == ""
    sink.close()


def test_what_lay_there_before_is_not(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine\n")
    for _ in range(2):
        sink = begun(path)
        assert "there is no journal" in sink.damage()
        sink.close()
    assert path.read_text() == "mine\n"

"""`yelpaze.Job`: a run from Python."""

import os
from collections.abc import AsyncIterable, Iterable
from typing import Any, Unpack

from yelpaze.flow.flow import Flow
from yelpaze.io.iterable import IterableSource
from yelpaze.jobs.input_feed import InputFeed
from yelpaze.jobs.options import JobOptions, options_of
from yelpaze.jobs.session import Session
from yelpaze.model.errors import MisuseError


class Job(Session):
    """A flow over rows, into a file or database, as `yelpaze run` does it: run again, it goes on.

        job = Job(flow, "rows.jsonl", output="offers.parquet")
        summary = await job.run(progress=True)

    - `rows`: a path, glob or URL; a list of `Path`s; or an (async) iterable of rows. A run over an iterable
      goes on only if it is given an `input_id`, and the same rows in the same order.
    - `output`: a file by its ending (.jsonl .csv .tsv .parquet .db), a URL, or `-` for standard output.
      Default: `NAME.results.jsonl`, for rows from a file.
    - `concurrency`: rows under way. `workers`: processes for CPU steps, or addresses of workers; by default
      one a core, 0 for this process. `batch`: rows sent to a worker at once. `engine`: options of `Engine`
      that replace the flow's own.
    - `limit`: the first so many rows; `sample`: so many drawn at random; `ordered`: results in the order of
      the rows.
    - `restart`: begins anew and keeps the old output beside; `accept`: what may have changed (`flow`,
      `input`, `output`).
    - `row_deadline`: seconds for a row; `row_retries`: runs its failed branches again; `max_failures`: stops
      when more rows than that, or that share, have failed; `grace`: seconds for rows under way after `stop`;
      `memory`: bytes of answers that rows hold; `commit_seconds`: between two commits.

    Dead letters, journal and the list of runs are those of the command line; `yelpaze retry` runs what
    failed. A cancelled or interrupted job (Ctrl-C) keeps what was done.

    Raises InputError, FlowError, MisuseError.
    """

    def __init__(
        self,
        flow: Flow,
        rows: str | os.PathLike[str] | Iterable[Any] | AsyncIterable[Any],
        *,
        output: str | os.PathLike[str] | None = None,
        input_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        names = _names_of(rows)
        if names and input_id is not None:
            raise MisuseError("input_id is for iterables: files are recognised by themselves")
        if not isinstance(flow, Flow):
            raise MisuseError(f"a job runs a Flow, not {type(flow).__name__}")
        if output == "" or (names is None and output is None):
            raise MisuseError("give output=…: rows of an iterable have no name of their own")
        given = options_of(names or (), None if output is None else os.fspath(output), options)
        iterable: Any = rows
        source = None if names else IterableSource(iterable, input_id)
        super().__init__(flow, given, InputFeed(flow.plan, given, source))


def _names_of(rows: Any) -> tuple[str, ...] | None:
    """The names of files that stand for rows; None for an iterable of rows."""
    if isinstance(rows, str | os.PathLike):
        return (os.fspath(rows),)
    if isinstance(rows, list | tuple) and rows and all(isinstance(row, os.PathLike) for row in rows):
        return tuple(map(os.fspath, rows))
    if not isinstance(rows, Iterable | AsyncIterable):
        raise MisuseError(f"rows are a path, a URL or an iterable, not {type(rows).__name__}")
    return None

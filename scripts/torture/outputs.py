"""What an output holds, read without Yelpaze, and how it can be spoiled."""

import contextlib
import csv
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

from promises import check


class Committed:
    """What an output holds by its own word: the run, the rows that are done, the results [(row, result)]."""

    def __init__(self, checkpoint, rows):
        checkpoint = checkpoint or {}
        acks = checkpoint.get("acks", {})
        through, still_open = acks.get("through", 0), set(acks.get("open", ()))
        self.run = checkpoint.get("run")
        self.done = {row for row in range(1, through + 1) if row not in still_open}
        self.succeeded = checkpoint.get("succeeded", 0)
        self.failed = checkpoint.get("failed", 0)
        self.rows = rows


def journal_of(path):
    """The last whole line of a journal."""
    data = path.read_bytes() if path.exists() else b""
    lines = [line for line in data[: data.rfind(b"\n") + 1].splitlines() if line]
    return json.loads(lines[-1]) if lines else None


def typed(record):
    """A result whose values are texts, or of a database's own types."""
    kinds = {"n": int, "total": int, "share": float, "word": str}
    return {name: kind(record[name]) for name, kind in kinds.items()}


class FileSink:
    """JSONL; what differs is below."""

    name = "out.jsonl"
    left = r"out(\.\d+)?\.jsonl|out\.failures(\.\d+)?\.jsonl|out\.jsonl\.journal"

    def output(self, round_):
        return f"disk/out/{self.name}"

    def path(self, round_):
        return round_.disk / "out" / self.name

    def journal(self, round_):
        return self.path(round_).with_name(f"{self.name}.journal")

    def touched(self, round_):
        return [self.path(round_), self.journal(round_), self.letters_path(round_)]

    def letters_path(self, round_):
        name = "out" if self.name == "out.jsonl" else self.name
        return self.path(round_).with_name(f"{name}.failures.jsonl")

    def committed(self, round_):
        last = journal_of(self.journal(round_))
        return Committed(last and last["checkpoint"], self.results(round_, last["results"]) if last else [])

    def results(self, round_, state):
        return lines_of(self.path(round_), state["length"])

    def finished(self, round_):
        """All results, as anybody would read them."""
        return lines_of(self.path(round_), None)

    def letters(self, round_):
        path = self.letters_path(round_)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def targets(self, round_):
        """(file, committed length)."""
        return [(self.path(round_), journal_of(self.journal(round_))["results"]["length"])]

    def spoil(self, round_):
        """Do some harm to the output; gives what undoes it."""
        last, rng = journal_of(self.journal(round_)), round_.rng
        targets = [(path, length) for path, length in self.targets(round_) if length]
        if last["failures"]["length"] and not last.get("is_renewed"):
            targets.append((self.letters_path(round_), last["failures"]["length"]))
        path, length = rng.choice(targets)
        kept = path.read_bytes()
        # What is edited in the middle of a part, and not longer or shorter, is not noticed.
        how = rng.choice(("remove", "cut") if path.suffix == ".parquet" else ("remove", "cut", "edit"))
        if how == "remove":
            path.unlink()
        elif how == "cut":
            path.write_bytes(kept[: rng.randrange(length)])
        else:
            place = length - 1 - rng.randrange(min(length, 4000))
            path.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
        round_.note(f"{how} {path.name}")
        return lambda: path.write_bytes(kept)


def lines_of(path, length):
    data = path.read_bytes()[:length]
    check(data.endswith(b"\n") or not data, f"{path} ends in the middle of a line")
    return [(record["row"], record["result"]) for record in map(json.loads, data.splitlines())]


class CsvSink(FileSink):
    name = "out.csv"
    left = r"out(\.\d+)?\.csv|out\.csv\.failures(\.\d+)?\.jsonl|out\.csv\.journal"

    def results(self, round_, state):
        return self.read(round_, state["file"]["length"])

    def finished(self, round_):
        return self.read(round_, None)

    def read(self, round_, length):
        text = self.path(round_).read_bytes()[:length].decode()
        check(text.endswith("\n") or not text, f"{self.name} ends in the middle of a line")
        return [(int(record["row"]), typed(record)) for record in csv.DictReader(text.splitlines())]

    def targets(self, round_):
        return [(self.path(round_), journal_of(self.journal(round_))["results"]["file"]["length"])]


class ParquetSink(FileSink):
    name = "out.parquet"
    left = (
        r"out\.parquet/part-\d+\.parquet|out\.\d+\.parquet/.*"
        r"|out\.parquet\.failures(\.\d+)?\.jsonl|out\.parquet\.journal"
    )

    def touched(self, round_):
        folder = self.path(round_)
        parts = [folder / "part-00001.parquet", folder / "_part-00001.parquet.new"]
        return [folder / "_open.jsonl", *parts, self.journal(round_)]

    def results(self, round_, state):
        path = self.path(round_) / "_open.jsonl"
        still_open = lines_of(path, state["open"]["length"]) if state["open"]["length"] else []
        return [*self.parts(round_, state["parts"]), *still_open]

    def finished(self, round_):
        return self.parts(round_, [path.name for path in sorted(self.path(round_).iterdir())])

    def parts(self, round_, names):
        import pyarrow.parquet  # noqa: PLC0415  large

        records = [
            row for name in names for row in pyarrow.parquet.read_table(self.path(round_) / name).to_pylist()
        ]
        return [(record["row"], typed(record)) for record in records]

    def targets(self, round_):
        folder, state = self.path(round_), journal_of(self.journal(round_))["results"]
        return [
            (folder / "_open.jsonl", state["open"]["length"]),
            *((folder / name, size) for name, size in state["parts"].items()),
        ]


class SqliteSink:
    left = r"out\.db|out\.db\.results\.lock"

    def output(self, round_):
        return "disk/out/out.db"

    def path(self, round_):
        return round_.disk / "out" / "out.db"

    def touched(self, round_):
        return [self.path(round_), self.path(round_).with_name("out.db-journal")]

    def ask(self, round_, text):
        """Of a copy: to bring the database back after a crash is the next life's business."""
        with tempfile.TemporaryDirectory() as folder:
            for path in self.touched(round_):
                if path.exists():
                    shutil.copy(path, folder)
            copy = Path(folder) / "out.db"
            if not copy.exists():
                return []
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                return rows_of(connection, text)

    def committed(self, round_):
        checkpoint = self.ask(round_, "SELECT checkpoint FROM yelpaze_runs WHERE output = 'results'")
        return Committed(json.loads(checkpoint[0][0]) if checkpoint else None, self.finished(round_))

    def finished(self, round_):
        found = self.ask(round_, 'SELECT "row", n, total, share, word FROM results ORDER BY rowid')
        return [
            (row[0], typed(dict(zip(("n", "total", "share", "word"), row[1:], strict=True)))) for row in found
        ]

    def letters(self, round_):
        return [json.loads(row[0]) for row in self.ask(round_, "SELECT letter FROM results_failures")]

    def spoil(self, round_):
        def do(text):
            with contextlib.closing(sqlite3.connect(self.path(round_))) as connection, connection:
                connection.execute(text)

        return spoil_table(do, "results", round_)


def rows_of(connection, text):
    try:
        return connection.execute(text).fetchall()
    except sqlite3.OperationalError as error:
        check("no such table" in str(error), f"{text}: {error}")
        return []


def spoil_table(do, table, round_):
    hidden = f"{table}_hidden"
    if round_.rng.random() < 0.5:
        round_.note("remove the table")
        do(f"ALTER TABLE {table} RENAME TO {hidden}")
        return lambda: do(f"ALTER TABLE {hidden} RENAME TO {table}")
    round_.note("delete a row")
    do(f'CREATE TABLE {hidden} AS SELECT * FROM {table} WHERE "row" = (SELECT max("row") FROM {table})')
    do(f'DELETE FROM {table} WHERE "row" IN (SELECT "row" FROM {hidden})')

    def undo():
        do(f"INSERT INTO {table} SELECT * FROM {hidden}")
        do(f"DROP TABLE {hidden}")

    return undo


class PostgresSink:
    left = r""

    def output(self, round_):
        return f"{round_.database.url}?table={self.table(round_)}"

    def table(self, round_):
        return f"round_{round_.number}"

    def touched(self, round_):
        return []

    def do(self, round_, text):
        import psycopg  # noqa: PLC0415  only here

        with psycopg.connect(round_.database.url, autocommit=True, connect_timeout=10) as connection:
            try:
                cursor = connection.execute(text)
                return cursor.fetchall() if cursor.description else []
            except psycopg.errors.UndefinedTable:
                return []

    def committed(self, round_):
        table = self.table(round_)
        checkpoint = self.do(round_, f"SELECT checkpoint FROM yelpaze_runs WHERE output = '{table}'")
        return Committed(json.loads(checkpoint[0][0]) if checkpoint else None, self.finished(round_))

    def finished(self, round_):
        found = self.do(
            round_, f'SELECT "row", n, total, share, word FROM {self.table(round_)} ORDER BY ctid'
        )
        return [
            (row[0], typed(dict(zip(("n", "total", "share", "word"), row[1:], strict=True)))) for row in found
        ]

    def letters(self, round_):
        found = self.do(round_, f"SELECT letter FROM {self.table(round_)}_failures")
        return [json.loads(row[0]) for row in found]

    def spoil(self, round_):
        return spoil_table(lambda text: self.do(round_, text), self.table(round_), round_)


SINKS = {
    "jsonl": FileSink(),
    "csv": CsvSink(),
    "parquet": ParquetSink(),
    "sqlite": SqliteSink(),
    "postgres": PostgresSink(),
}

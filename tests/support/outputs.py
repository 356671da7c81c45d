"""Every kind of output: how it is opened, looked into, torn and left by a process that dies."""

import csv
import itertools
import json
import os
import sqlite3
from pathlib import Path

from yelpaze.io.backends import open_sink
from yelpaze.io.file_sink import FileSink
from yelpaze.io.protocol import Checkpoint, DeadLetter, Sink
from yelpaze.policy.acks import AckState

_NUMBERS = itertools.count(1)


def result(row: int) -> bytes:
    return b'{"id":%d,"value":"v%d"}' % (row, row)


def letter(row: int, **changes) -> DeadLetter:
    fields = {
        "input": {"n": row},
        "step": "base",
        "error": {"kind": "status", "message": "no", "status": 503},
    }
    return DeadLetter(row=row, **(fields | changes))


def checkpoint(through: int, *, failed: int = 0, **changes) -> Checkpoint:
    """As if all rows up to that one were done."""
    counts = {"succeeded": through - failed, "failed": failed} | changes
    return Checkpoint(run="test", identity={}, acks=AckState(through), **counts)


class Output:
    """One output; each object of this class has a place of its own."""

    is_file = True
    is_typed = True
    """Whether a column takes values of one type only."""
    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / str(next(_NUMBERS))
        self.folder.mkdir()
        self.path = self.folder / self.name
        self.url = str(self.path)
        self._sinks: list[Sink] = []

    def sink(self, annotation: object = None) -> Sink:
        """Another object, as another process has one."""
        sink = open_sink(self.url, (), annotation)
        self._sinks.append(sink)
        return sink

    def begun(self, annotation: object = None) -> Sink:
        """A sink that goes on from the last commit, whose output is as it was left."""
        sink = self.sink(annotation)
        sink.checkpoint()
        assert sink.damage() is None
        sink.resume()
        return sink

    def run(self, *rows: int, failed: tuple[int, ...] = (), is_last: bool = True) -> None:
        """A whole life that takes these rows."""
        sink = self.begun()
        for row in rows:
            sink.write(row, result(row))
        for row in failed:
            sink.fail(letter(row))
        sink.commit(checkpoint(len(rows) + len(failed), failed=len(failed)), is_last=is_last)()
        sink.close()

    def crash(self, sink: Sink) -> None:
        """What the kernel does for a process that was killed: it closes its descriptors."""
        assert isinstance(sink, FileSink)
        for name in ("_file", "_open"):
            if hasattr(sink._layout, name):
                getattr(sink._layout, name).close()
        sink._letters.close()
        if sink._journal._file >= 0:
            os.close(sink._journal._file)
            sink._journal._file = -1

    def close(self) -> None:
        for sink in self._sinks:
            self.crash(sink)
        self._sinks.clear()

    def tear(self) -> None:
        """What a power cut may leave: part of a line at the end of every file."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix != ".parquet":
                with path.open("ab") as file:
                    file.write(b'{"row":99')

    def values(self) -> dict[int, object]:
        """Each row's fields, texts where the format has no types."""
        raise NotImplementedError

    def rows(self) -> list[int]:
        """The rows that are there, each as it was written."""
        found = self.values()
        for row, value in found.items():
            assert {name: str(item) for name, item in value.items()} == {"id": str(row), "value": f"v{row}"}
        return sorted(found)

    def letters(self) -> list[int]:
        sink = self.begun()
        rows = [letter.row for letter in sink.dead_letters()]
        sink.close()
        return sorted(rows)

    def damage(self) -> str | None:
        """As the next life would find."""
        sink = self.sink()
        sink.checkpoint()
        damage = sink.damage()
        self.crash(sink)
        return damage


class Jsonl(Output):
    name = "out.jsonl"
    is_typed = False

    def values(self):
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        found = {line["row"]: line["result"] for line in lines}
        assert len(found) == len(lines)
        return found


class Csv(Output):
    name = "out.csv"
    delimiter = ","
    is_typed = False

    def values(self):
        with self.path.open(newline="") as file:
            lines = list(csv.DictReader(file, delimiter=self.delimiter))
        found = {int(line.pop("row")): line for line in lines}
        assert len(found) == len(lines)
        return found


class Tsv(Csv):
    name = "out.tsv"
    delimiter = "\t"


class Parquet(Output):
    name = "out.parquet"

    def values(self):
        import pyarrow.parquet as pq

        # Between two commits some rows are not in a part yet: they lie in a file of lines.
        lines = []
        if (self.path / "_open.jsonl").exists():
            lines = [json.loads(line) for line in (self.path / "_open.jsonl").read_text().splitlines()]
        found = {line["row"]: line["result"] for line in lines}
        count = len(lines)
        for part in sorted(self.path.glob("*.parquet")):
            rows = pq.read_table(part).to_pylist()
            count += len(rows)
            found |= {row.pop("row"): row for row in rows}
        assert len(found) == count
        return found

    def tear(self):
        super().tear()
        if self.path.is_dir():
            (self.path / "part-00099.parquet").write_bytes(b"PAR1")
            (self.path / "_part-00100.parquet.new").write_bytes(b"PAR1")


class Sqlite(Output):
    is_file = False
    name = "out.db"
    table = "results"
    key = ""

    def __init__(self, folder):
        super().__init__(folder)
        self.url = f"sqlite:///{self.path}?table={self.table}{self.key}"

    def sql(self, text: str, *parameters) -> list[tuple]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(text, parameters).fetchall()
        finally:
            connection.close()

    def columns(self, table: str) -> list[str]:
        return [name for _, name, *_ in self.sql(f'PRAGMA table_info("{table}")')]

    def values(self, table=None):
        table = table or self.table
        names = self.columns(table)
        if not names:
            return {}
        rows = [dict(zip(names, row, strict=True)) for row in self.sql(f"SELECT * FROM {table}")]
        found = {row.pop("row"): row for row in rows}
        assert len(found) == len(rows)
        return found

    def crash(self, sink):
        if sink._db is not None:
            sink._db.close()
            sink._db = None

    def tear(self):
        pass

    def database(self) -> type:
        from yelpaze.io.sqlite import Sqlite

        return Sqlite


class SqliteKey(Sqlite):
    key = "&key=id"


class Postgres(Sqlite):
    server = ""

    def __init__(self, folder):
        import psycopg

        super().__init__(folder)
        self.table = f"out_{self.folder.name}"
        self.url = f"{self.server}?table={self.table}{self.key}"
        self._connection = psycopg.connect(self.server, autocommit=True)

    def sql(self, text, *parameters):
        cursor = self._connection.execute(text, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []

    def columns(self, table):
        cursor = self._connection.execute("SELECT to_regclass(%s)", [table])
        if cursor.fetchone() == (None,):
            return []
        return [
            column.name for column in self._connection.execute(f"SELECT * FROM {table} LIMIT 0").description
        ]

    def database(self):
        from yelpaze.io.postgres import Postgres

        return Postgres

    def close(self):
        super().close()
        self._connection.close()


class PostgresKey(Postgres):
    key = "&key=id"


OUTPUTS = {
    kind.__name__: kind for kind in (Jsonl, Csv, Tsv, Parquet, Sqlite, SqliteKey, Postgres, PostgresKey)
}

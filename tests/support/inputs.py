"""Every kind of input, made from the same rows."""

import csv
import gzip
import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from support.needed import needs

_NUMBERS = itertools.count(1)

COUNT = 23
ROWS = [
    {"id": number, "name": f"n{number}", "note": "x" * (number * 7 % 40) + ("ş😀" if number % 5 == 0 else "")}
    for number in range(1, COUNT + 1)
]


class Input(NamedTuple):
    """What `yelpaze run` would be given, and the rows that it has: their numbers and values."""

    texts: tuple[str, ...]
    rows: list[tuple[int, Any]]


def _numbered(rows: list, start: int = 1) -> list[tuple[int, Any]]:
    return list(enumerate(rows, start))


def _lines(rows: list = ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def jsonl(folder: Path, postgres) -> Input:
    path = folder / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + _lines(ROWS[:9]) + b"\n  \r\n" + _lines(ROWS[9:]).rstrip(b"\n"))
    return Input((str(path),), _numbered(ROWS[:9]) + _numbered(ROWS[9:], 12))


def gz(folder: Path, postgres) -> Input:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(_lines(ROWS[:9])) + gzip.compress(_lines(ROWS[9:])))
    return Input((str(path),), _numbered(ROWS))


def zst(folder: Path, postgres) -> Input:
    needs("backports.zstd")
    from backports import zstd

    path = folder / "rows.jsonl.zst"
    pack = zstd.compress
    path.write_bytes(pack(_lines(ROWS[:9])) + pack(b"") + pack(_lines(ROWS[9:])))
    return Input((str(path),), _numbered(ROWS))


def several(folder: Path, postgres) -> Input:
    (folder / "a.jsonl").write_bytes(_lines(ROWS[:9]))
    (folder / "b.jsonl").write_bytes(b"")
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(_lines(ROWS[9:15]).rstrip(b"\n")))
    (folder / "d.jsonl").write_bytes(b"\n" + _lines(ROWS[15:]))
    return Input((str(folder / "*.jsonl*"),), _numbered(ROWS[:15]) + _numbered(ROWS[15:], 17))


def _texts(rows: list = ROWS) -> list[dict[str, str]]:
    """With a note of several lines now and then."""
    return [
        {
            **row,
            "id": str(row["id"]),
            "note": row["note"] + ('\n"two",\r\n\nlines' * 3 if row["id"] % 4 == 0 else ""),
        }
        for row in rows
    ]


def _delimited(
    path: Path, rows: list[dict[str, str]], delimiter: str, start: int = 1
) -> list[tuple[int, Any]]:
    """Write the rows; they and the numbers of the lines where they begin."""
    found, number = [], start + 1
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "name", "note"], delimiter=delimiter, lineterminator="\r\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            found.append((number, row))
            number += 1 + row["note"].count("\n")
    return found


def csv_(folder: Path, postgres) -> Input:
    path = folder / "rows.csv"
    return Input((str(path),), _delimited(path, _texts(), ","))


def semicolons(folder: Path, postgres) -> Input:
    path = folder / "rows.csv"
    return Input((str(path),), _delimited(path, _texts(), ";"))


def tsv(folder: Path, postgres) -> Input:
    path = folder / "rows.tsv"
    return Input((str(path),), _delimited(path, _texts(), "\t"))


def several_csv(folder: Path, postgres) -> Input:
    """The second has other columns in front, and is packed."""
    first, second, plain = folder / "a.csv", folder / "b.csv.gz", folder / "plain"
    rows = _delimited(first, _texts(ROWS[:9]), ",")
    lines = first.read_bytes().count(b"\n")
    rows += _delimited(plain, _texts(ROWS[9:]), "|", start=lines + 1)
    second.write_bytes(gzip.compress(plain.read_bytes()))
    return Input((str(first), str(second)), rows)


def parquet(folder: Path, postgres) -> Input:
    needs("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**row, "deep": {"a": [row["id"], None]}} for row in ROWS]
    parts = folder / "rows.parquet"
    parts.mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:17]), parts / "a.parquet", row_group_size=6)
    pq.write_table(pa.Table.from_pylist(rows[:0], pa.schema([("id", pa.int64())])), parts / "b.parquet")
    pq.write_table(pa.Table.from_pylist(rows[17:]), parts / "c.parquet", row_group_size=5)
    return Input((str(parts),), _numbered(rows))


def _sqlite(folder: Path) -> Path:
    path = folder / "rows.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (id INTEGER, name TEXT PRIMARY KEY, note TEXT)")
    connection.executemany("INSERT INTO t VALUES (:id, :name, :note)", reversed(ROWS))
    connection.commit()
    connection.close()
    return path


def _by_name(rows: list = ROWS) -> list:
    return sorted(rows, key=lambda row: row["name"])


def sqlite_table(folder: Path, postgres) -> Input:
    return Input((f"sqlite:///{_sqlite(folder)}?table=t",), _numbered(_by_name()))


def sqlite_key(folder: Path, postgres) -> Input:
    return Input((f"sqlite:///{_sqlite(folder)}?table=t&key=id",), _numbered(ROWS))


def sqlite_query(folder: Path, postgres) -> Input:
    query = "SELECT id AS \"a%b\", name FROM t WHERE name LIKE 'n%25' AND id > 4 -- the rest"
    rows = [{"a%b": row["id"], "name": row["name"]} for row in ROWS[4:]]
    return Input(
        (f"sqlite:///{_sqlite(folder)}?key=a%25b&query={query.replace(' ', '%20')}",), _numbered(rows)
    )


def _postgres(postgres, name: str) -> str:
    needs("psycopg")
    import psycopg

    table = f"in_{next(_NUMBERS)}"
    with psycopg.connect(postgres().url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f'CREATE TABLE {table} (id integer PRIMARY KEY, name text COLLATE "C", note text, at timestamptz, '
            "code uuid, price numeric, day date)"
        )
        cursor.executemany(
            f"INSERT INTO {table} VALUES (%(id)s, %(name)s, %(note)s, "
            "timestamptz '2026-01-01 00:00:00.000001+02' + %(id)s * interval '0.000001 s' * 10, "
            "md5(%(id)s::text)::uuid, %(id)s / 7.0, date '2026-01-01' + %(id)s)",
            ROWS,
        )
    return table


def _postgres_by(key: str):
    def make(folder: Path, postgres) -> Input:
        import psycopg
        from psycopg.rows import dict_row

        table = _postgres(postgres, key)
        with psycopg.connect(postgres().url, row_factory=dict_row) as connection:
            rows = connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall()
        return Input((f"{postgres().url}?table={table}&key={key}",), _numbered(rows))

    return make


def postgres_table(folder: Path, postgres) -> Input:
    url, rows = _postgres_by("id")(folder, postgres)
    return Input((url[0].removesuffix("&key=id"),), rows)


def postgres_query(folder: Path, postgres) -> Input:
    query = (
        f"SELECT id, name AS \"na%me\" FROM {_postgres(postgres, 'id')} WHERE name LIKE 'n%25' -- all of them"
    )
    rows = [{"id": row["id"], "na%me": row["name"]} for row in _by_name()]
    return Input((f"{postgres().url}?key=na%25me&query={query.replace(' ', '%20')}",), _numbered(rows))


INPUTS = {
    "jsonl": jsonl,
    "jsonl.gz": gz,
    "jsonl.zst": zst,
    "several": several,
    "csv": csv_,
    "semicolons": semicolons,
    "tsv": tsv,
    "several csv": several_csv,
    "parquet": parquet,
    "sqlite table": sqlite_table,
    "sqlite key": sqlite_key,
    "sqlite query": sqlite_query,
    "postgres table": postgres_table,
    "postgres query": postgres_query,
    **{f"postgres by {key}": _postgres_by(key) for key in ("name", "at", "code", "price", "day")},
}

"""Hurt `yelpaze run` in every way there is, and check afterwards that nothing was lost or done twice.

python scripts/torture.py --rounds 200              seeds itself, and prints the seed
python scripts/torture.py --seed 7 --only 31        one round of a run again
python scripts/torture.py --sinks csv,sqlite --faults full_disk,kill

A round takes one input through `yelpaze run FLOW INPUT -o OUTPUT` in several lives. The flow
calls a server twice for each row and computes in worker processes; some rows always fail. In each
life something happens (`FAULTS`, at the end of the faults' part of this file); then the same
command goes on. At the last it is let finish, and started once more.

After each life:

- it ended in time, with an exit code that the fault allows, a clear message and no traceback;
- no process of it is left;
- what is committed holds only whole, right results, no row twice, and as many as it says;
- the server was asked for no row again that was committed before that life; a `retry` asks
  for failed rows only, and of these only for the step that failed.

At the end:

- the run says that it is finished, and exits with 0;
- every row of the input is in the output or in the dead letters, once;
- the results are those of a run that nobody disturbed, and so are the dead letters, but for
  those that `yelpaze retry` has run again;
- with --ordered, the rows are in order;
- nothing lies there but the output, the dead letters, the journal or lock, and what
  --restart has put aside.

A server goes away only while many rows are under way: a call that is the only one under way may use
up its attempts meanwhile and fail its row, since nothing tells then that others would fail, too.

What is not tried: a power cut (the order of fsync can't be seen from here: the kernel keeps
what a killed process wrote), and the clock of the machine: it is not ours to set. Jumps of the
clock are made inside the processes, by a `time.time` that is off by hours, another number
of hours every now and then.

Rounds run two at a time (--jobs). At the first broken promise, the folder of the round is kept
and named. Everything is local and bounded in time, and only what was started here is stopped.
"""

import argparse
import contextlib
import csv
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
YELPAZE = [sys.executable, "-m", "yelpaze.cli.main"]
MOST_ROWS = 900
PATIENCE = 60.0  # seconds, for anything
DONE = {0, 1}
KILLED = {-signal.SIGKILL}

FLOW = """
import os
from hashlib import sha256
from typing import TypedDict
from yelpaze import Breaker, Flow, Timeout, post

URL = os.environ["TORTURE_URL"]
flow = Flow("torture", engine={"timeout": Timeout(attempt=1.0), "breaker": Breaker(pause=1.0)})

@flow.request(idempotent=True)
def first(row):
    return post(f"{URL}/1/{row['n']}", json=row)

@flow.request(idempotent=True)
def second(first: dict):
    return post(f"{URL}/2/{first['n']}", json=first)

class Result(TypedDict):
    n: int
    total: int
    share: float
    word: str

@flow.compute(timeout=2)
def result(row: dict, first: dict, second: dict) -> Result:
    digest = b"%d" % int(row["n"])
    for _ in range(1000):
        digest = sha256(digest).digest()
    n = first["n"]
    return {"n": n, "total": first["base"] + second["add"], "share": n / 7, "word": digest.hex()}
"""

CLOCK = """
import random, time

now, rng, shift = time.time, random.Random(), [0.0]

def jumping():
    if rng.random() < 0.02:
        shift[0] = rng.uniform(-30, 30) * 3600
    return now() + shift[0]

time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


class BrokenPromiseError(AssertionError):
    """What must hold does not."""


def check(holds, text):
    if not holds:
        raise BrokenPromiseError(text)


# ── the server ──────────────────────────────────────────────────────────────────


def fails_at(n):
    """The step at which that row fails, or 0, and the status."""
    if n % 13 == 5:
        return 1, 404
    return (2, 422) if n % 17 == 3 else (0, 200)


class Counts:
    """How often the server was asked for a row, in a file that outlives it.

    Two bytes before the counts tell the server what to do: `healed`, the steps that fail no more
    (1, 2, or 3 for both), and `hurried`, whether it answers without delay.
    """

    def __init__(self, path):
        size = 2 + 2 * 2 * (MOST_ROWS + 1)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._counts = memoryview(self._map)[2:].cast("H")

    def add(self, step, n):
        self._counts[(step - 1) * (MOST_ROWS + 1) + n] += 1

    def snapshot(self):
        values = self._counts.tolist()
        return {1: values[: MOST_ROWS + 1], 2: values[MOST_ROWS + 1 :]}

    def total(self):
        return sum(self._counts)

    healed = property(lambda self: self._map[0], lambda self, steps: self._map.__setitem__(0, steps))
    hurried = property(lambda self: self._map[1], lambda self, is_so: self._map.__setitem__(1, is_so))


def serve(port, path):
    """The server's process: the same answer for the same row, after the same delay."""
    import asyncio  # noqa: PLC0415  only in this process

    counts = Counts(path)

    def answer(step, n):
        at, status = fails_at(n)
        if at != step or counts.healed & step:
            return 200, {"n": n, "base": n * 7 % 1000} if step == 1 else {"add": n * n % 997}
        return status, {"error": "so it is"}

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.data = transport, b""

        def data_received(self, data):
            self.data += data
            head, end, body = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if not end or len(body) < int(length[1]):
                return
            self.data = b""
            step, n = map(int, head.split(b" ", 2)[1].decode().strip("/").split("/"))
            counts.add(step, n)
            status, value = answer(step, n)
            text = json.dumps(value)
            kind = "Content-Type: application/json"
            line = f"HTTP/1.1 {status} X\r\n{kind}\r\nContent-Length: {len(text)}\r\n\r\n"
            # So long that a run lasts some seconds: commits come once a second.
            delay = 0.4 if n % 50 == 0 else (20 + (n * 7919 + step) % 81) / 1000
            later = asyncio.get_running_loop().call_later
            later(0 if counts.hurried else delay, self.reply, (line + text).encode())

        def reply(self, data):
            if not self.transport.is_closing():
                self.transport.write(data)

    async def main():
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=512)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


class Server:
    """The server's process, which can die and come back."""

    def __init__(self, folder, rng):
        self._path = folder / "counts"
        self.counts = Counts(self._path)
        self._log = (folder / "server.err").open("ab")
        # Below the ports that the system gives away: nobody takes it while the server is dead.
        for _ in range(100):
            self.port = rng.randrange(20000, 30000)
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", self.port)):
                break
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(self.port), "--counts", str(self._path)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start on port {self.port}")

    def die(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.die()
        self._log.close()


# ── processes ───────────────────────────────────────────────────────────────────


def processes_of(tag):
    """(pid, parent, command) of each process with that text in its command or environment."""
    listing = subprocess.run(
        ["ps", "axeww", "-o", "pid=,ppid=,stat=,command="],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    ).stdout
    found = []
    for line in listing.splitlines():
        pid, parent, state, command = (*line.split(None, 3), "")[:4]
        if tag in command and not state.startswith("Z"):
            found.append((int(pid), int(parent), command))
    return found


class Life:
    """One process of `yelpaze`. A fault starts it, and says which exit codes may come of it."""

    def __init__(self, round_, command=("run",)):
        self.round = round_
        self.rng = round_.rng
        self.command = command
        self.arguments = []
        self.env = {}
        self.prefix = []
        self.allowed = set(DONE)
        self.is_new = False  # begins anew
        self.process = None
        self.code = None
        self.stderr = round_.folder / f"life-{len(round_.lives):02}.err"
        round_.lives.append(self)

    # what happens

    def start(self):
        round_ = self.round
        place = ["-o", round_.output]
        if self.command[0] == "run":
            subject = ["flow.py", round_.input, *place]
        else:  # the list of runs does not know who a database is asked as
            subject = [*self.command[1:], *(place if round_.sink_name == "postgres" else [])]
        options = [
            *round_.options,
            *(["--ordered"] if round_.is_ordered and self.command[0] == "run" else []),
        ]
        words = [*self.prefix, *YELPAZE, self.command[0], *subject, *options, *self.arguments]
        env = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LANG": "C.UTF-8",
            "XDG_STATE_HOME": str(round_.state),
            "TORTURE_URL": round_.server.url,
            **self.env,
        }
        self.calls_before = round_.server.counts.total()
        with self.stderr.open("wb") as errors:
            errors.write((" ".join(map(str, words)) + "\n").encode())
            errors.flush()
            self.process = subprocess.Popen(
                [*map(str, words)],
                cwd=round_.folder, env=env, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        return self

    def is_alive(self):
        return self.process.poll() is None

    def sleep(self, seconds):
        """Whether it still lives after that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.is_alive()

    def until(self, happens):
        """Wait for something; whether it has come while this lives."""
        until = time.monotonic() + PATIENCE
        while self.is_alive():
            if happens():
                return True
            check(time.monotonic() < until, "nothing happens any more")
            time.sleep(0.0005)
        return False

    def until_called(self):
        """The first call of this life has reached the server."""
        return self.until(lambda: self.round.server.counts.total() > self.calls_before)

    def moment(self):
        """A random moment while rows are under way, often close to a commit."""
        if not self.until_called():
            return False
        rng = self.rng
        tick = rng.choice((1, 1, 2)) + rng.uniform(-0.05, 0.15)
        return self.sleep(rng.choice((rng.uniform(0, 0.9), rng.uniform(0.9, 2.5), tick)))

    def in_the_middle(self):
        """A random moment with many rows still to come; False if there are not so many."""
        counts, rows = self.round.server.counts, self.round.rows

        def called():
            return sum(map(bool, counts.snapshot()[1]))

        if called() > rows - 200:
            return False
        some = self.rng.randrange(called(), rows - 150)
        return self.until_called() and self.until(lambda: called() >= some)

    def until_commit(self):
        """A commit has begun: its files change. A database is hit by the clock."""
        files = self.round.sink.touched(self.round)
        if not self.until_called():
            return False
        if self.rng.random() < 0.6 and not self.sleep(0.8):  # past the first, which comes with the first call
            return False
        if not files:
            return self.sleep(self.rng.uniform(0, 0.3))

        def sizes():
            return [path.stat().st_size if path.exists() else -1 for path in files]

        with contextlib.suppress(FileNotFoundError):
            before = sizes()
            self.until(lambda: sizes() != before)
        time.sleep(self.rng.choice((0, 0, 0, 0.0005, 0.001, 0.003, 0.01)))
        return self.is_alive()

    def workers(self):
        pid = self.process.pid
        found = processes_of(str(self.round.state))
        return [
            one for one, parent, command in found if parent == pid and "yelpaze.compute.worker" in command
        ]

    def signal(self, number):
        if self.is_alive():
            self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.allowed |= KILLED

    def wait(self):
        try:
            self.code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise BrokenPromiseError(f"it did not end within {PATIENCE:g} s") from None
        return self

    def words(self):
        """What it said on stderr, without its command line."""
        return self.stderr.read_text(errors="replace").partition("\n")[2]


def signal_pid(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# ── faults ──────────────────────────────────────────────────────────────────────
# Each is one life: it starts it, does harm, and sets the exit codes that may come of that.


def nothing(life):
    life.start()


def kill(life):
    life.start().moment()
    life.kill()


def kill_early(life):
    """While it starts, finds out where to go on, and cuts the files back."""
    life.start().sleep(life.rng.uniform(0, 0.8))
    life.kill()


def kill_in_commit(life):
    life.start().until_commit()
    life.kill()


def kill_in_the_end(life):
    """While the last commit is made, and the process goes."""
    counts, rows = life.round.server.counts, life.round.rows
    life.start()
    life.until(lambda: sum(map(bool, counts.snapshot()[1])) >= rows)
    life.sleep(life.rng.uniform(0, 0.5))
    life.kill()


def kill_worker(life):
    """One of them, or all at once."""
    if life.start().moment():
        workers = life.workers()
        for pid in workers[: life.rng.choice((1, len(workers)))]:
            signal_pid(pid, signal.SIGKILL)


def kill_both(life):
    kill_worker(life)
    life.sleep(life.rng.choice((0, 0.01, life.rng.uniform(0, 0.8))))
    life.kill()


def ask_to_stop(life):
    """SIGTERM or SIGINT, once, or again when that takes too long."""
    if life.start().moment():
        number = life.rng.choice((signal.SIGTERM, signal.SIGINT))
        life.signal(number)
        if life.rng.random() < 0.4:
            life.sleep(life.rng.uniform(0.01, 0.2))
            life.signal(number)
            life.allowed |= {-number}  # it may be on its way out already
        life.allowed |= {130}


def freeze(life):
    """SIGSTOP for longer than all time limits."""
    if life.start().moment():
        life.signal(signal.SIGSTOP)
        time.sleep(life.rng.uniform(1.2, 2.8))
        if life.rng.random() < 0.2:
            life.kill()
        life.signal(signal.SIGCONT)


def freeze_worker(life):
    """It outruns its time limit. Killed with its parent, too, now and then."""
    if life.start().moment() and (workers := life.workers()):
        signal_pid(life.rng.choice(workers), signal.SIGSTOP)
        if life.rng.random() < 0.3:
            life.sleep(life.rng.uniform(0, 1.0))
            life.kill()


def server_dies(life):
    server = life.round.server
    if not life.start().in_the_middle():
        return
    server.die()
    time.sleep(life.rng.uniform(0.1, 2.5))
    if life.rng.random() < 0.2:
        life.kill()
    server.start()


def server_stalls(life):
    """It accepts and answers nothing, for longer than an attempt may take, or than all attempts."""
    server = life.round.server.process
    if not life.start().in_the_middle():
        return
    server.send_signal(signal.SIGSTOP)
    life.sleep(life.rng.uniform(1.2, 4.0))
    if life.rng.random() < 0.2:
        life.kill()
    server.send_signal(signal.SIGCONT)


def database_dies(life):
    """As in a crash; it comes back."""
    database = life.round.database
    life.start().moment()
    database.kill()
    life.sleep(life.rng.uniform(0.1, 2.0))
    if life.rng.random() < 0.3:
        life.kill()
    database.start()


def full_disk(life):
    """No space is left, and later there is some again.

    Without a disk of its own (that takes root), a file may grow no further.
    """
    round_ = life.round
    life.allowed |= {2, 3}
    if not round_.is_mounted or life.rng.random() < 0.2:
        blocks = str(life.rng.randrange(8, 160))
        life.prefix = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh"]
        life.start()
        return
    if life.rng.random() < 0.2:
        round_.fill_disk()
        life.start()
    else:
        life.start().moment()
        round_.fill_disk()
    try:
        life.wait()
        if life.rng.random() < 0.3:
            again = Life(round_)
            again.allowed |= {2, 3}
            again.start().wait()
    finally:
        round_.free_disk()


def clock_jumps(life):
    paths = (str(life.round.clock), os.environ.get("PYTHONPATH", ""))
    life.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    life.start()
    if life.rng.random() < 0.5:
        life.moment()
        life.kill()


def damage(life):
    """The output is removed, cut or edited: refused, until it is put back, or --restart is given."""
    round_ = life.round
    if not round_.committed().rows:
        kill(life)
        return
    undo = round_.sink.spoil(round_)
    before = round_.files()
    life.start().wait()
    life.allowed = {2}
    said = life.words()
    check(life.code == 2, f"a damaged output was not refused: exit {life.code}: {said}")
    check("--restart" in said and "--accept-changed output" in said, f"what to do is not said: {said}")
    check(round_.files() == before, "a refused run has changed files")
    if life.rng.random() < 0.6:
        undo()
        return
    anew = Life(round_)
    anew.arguments, anew.is_new = ["--restart"], True
    anew.start().until_called()
    round_.begin_anew()
    if life.rng.random() < 0.5:
        anew.moment()
        anew.kill()


def two_at_once(life):
    """The second is refused, though the first is stopped. So is a retry."""
    if life.start().moment():
        life.signal(signal.SIGSTOP)
        other = Life(life.round, life.rng.choice((("run",), ("retry", "last"))))
        other.allowed = {2}
        other.start().wait()
        life.signal(signal.SIGCONT)
        if life.is_alive() or life.process.poll() in DONE:
            said = other.words()
            check(other.code == 2, f"a second run was let in: exit {other.code}: {said}")
            check("another run is writing it" in said, f"the reason is not said: {said}")


def retry(life):
    """Some of the rows that failed go well now; and that is disturbed, too."""
    round_ = life.round
    name = "last" if not round_.was_restarted else round_.committed().run
    life.command = ("retry", name or "last")
    if round_.committed().run is None:
        life.allowed |= {2}  # there is no run yet
    healed = life.rng.choice((1, 2, 3))
    round_.server.counts.healed = healed
    round_.healed |= healed
    try:
        harm = life.rng.choice((nothing, nothing, kill, kill_early, kill_in_commit, kill_worker, ask_to_stop))
        harm(life)
        life.wait()
    finally:
        round_.server.counts.healed = 0


FAULTS = (
    kill, kill_early, kill_in_commit, kill_in_the_end, kill_worker, kill_both, ask_to_stop, freeze,
    freeze_worker, server_dies, server_stalls, database_dies, full_disk, clock_jumps, damage, two_at_once,
    retry,
)  # fmt: skip


# ── sinks ───────────────────────────────────────────────────────────────────────


class Committed:
    """What an output holds by its own word: the run, the rows that are done, the results [(row, result)]."""

    def __init__(self, standing, rows):
        standing = standing or {}
        progress = standing.get("progress", {})
        through, still_open = progress.get("through", 0), set(progress.get("open", ()))
        self.run = standing.get("run")
        self.done = {row for row in range(1, through + 1) if row not in still_open}
        self.succeeded = standing.get("succeeded", 0)
        self.failed = standing.get("failed", 0)
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
        return Committed(last and last["standing"], self.results(round_, last["results"]) if last else [])

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
        standing = self.ask(round_, "SELECT standing FROM yelpaze_runs WHERE output = 'results'")
        return Committed(json.loads(standing[0][0]) if standing else None, self.finished(round_))

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
        standing = self.do(round_, f"SELECT standing FROM yelpaze_runs WHERE output = '{table}'")
        return Committed(json.loads(standing[0][0]) if standing else None, self.finished(round_))

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


# ── a round ─────────────────────────────────────────────────────────────────────


class Round:
    """An input taken through several lives, and what must hold after each and at the end."""

    def __init__(self, number, *, seed, sink, fault, folder, database):
        self.number = number
        self.rng = rng = random.Random(f"{seed}:{number}")
        self.sink_name, self.sink = sink, SINKS[sink]
        self.plan = [fault, *rng.choices([f for f in FAULTS if applies(f, sink)], k=rng.randrange(3))]
        rng.shuffle(self.plan)
        self.folder = folder
        self.clock = folder.parent / "clock"  # beside the flow, it would be part of it
        self.disk = folder / "disk"
        self.state = self.disk / "state"
        self.database = database
        self.rows = rng.randrange(500, MOST_ROWS + 1)
        # In order, a slow row may be the only one under way: see above about lone calls.
        self.is_ordered = rng.random() < 0.2 and not {server_dies, server_stalls} & {*self.plan}
        self.options = [
            "-q", "--workers", rng.choice((1, 2)), "--concurrency", rng.randrange(24, 49),
            "--batch", rng.choice((4, 64)), "--grace", rng.choice((0, 0.3, 10)),
        ]  # fmt: skip
        self.lives = []
        self.healed = 0
        self.is_mounted = self.was_restarted = False
        self.notes = []
        self.known = Committed(None, [])
        self.calls = None

    def note(self, text):
        self.notes.append(text)

    def run(self, reference):
        began = time.monotonic()
        self.set_up()
        try:
            self.live(reference)
        finally:
            for life in self.lives:
                if life.process is not None and life.is_alive():
                    life.process.kill()
                    life.process.wait()
            self.server.close()
            self.give_disk_back()
        dead = sum(bool(fails_at(row)[0]) for row in range(1, self.rows + 1))
        return f"{len(self.lives)} lives, {self.rows} rows ({dead} fail), {time.monotonic() - began:.1f} s"

    def set_up(self):
        self.disk.mkdir(parents=True)
        self.server = Server(self.folder, self.rng)
        if full_disk in self.plan and sys.platform == "linux" and os.geteuid() == 0:
            mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(self.disk)]
            self.is_mounted = subprocess.run(mount, capture_output=True).returncode == 0  # noqa: PLW1510
        (self.disk / "out").mkdir()
        (self.folder / "flow.py").write_text(FLOW)
        self.clock.mkdir(exist_ok=True)
        (self.clock / "sitecustomize.py").write_text(CLOCK)
        self.input = "in.jsonl"
        (self.folder / self.input).write_text("".join(f'{{"n":{n}}}\n' for n in range(1, self.rows + 1)))
        self.output = self.sink.output(self)

    def live(self, reference):
        self.calls = self.server.counts.snapshot()
        for fault in self.plan:
            self.seen = len(self.lives)
            fault(Life(self))
            self.inspect(reference)
        self.seen = len(self.lives)
        last = Life(self).start()
        self.inspect(reference)
        check(last.code in DONE, f"the last life ended with {last.code}")
        again = Life(self)
        self.options.remove("-q")
        said = again.start().wait().words()
        check(again.code == 0, f"a finished run, started again, exits with {again.code}: {said}")
        check("is finished" in said, f"it does not say that it is finished: {said}")
        check(self.server.counts.snapshot() == self.calls, "a finished run has called the server")
        self.judge(reference)

    # after a life

    def inspect(self, reference):
        for life in self.lives[self.seen :]:
            life.wait()
            said = life.words()
            check("Traceback" not in said, f"a traceback: {said}")
            check(life.code in life.allowed, f"exit {life.code}, not one of {sorted(life.allowed)}: {said}")
            check(
                life.code not in (2, 3) or "yelpaze: " in said, f"exit {life.code} without a reason: {said}"
            )
        until = time.monotonic() + PATIENCE
        while left := processes_of(str(self.state)):
            check(time.monotonic() < until, f"processes are left: {left}")
            time.sleep(0.05)
        now = self.committed()
        rows = [row for row, _ in now.rows]
        twice = [row for row, count in Counter(rows).items() if count > 1]
        check(not twice, f"rows are there twice: {twice[:10]}")
        wrong = [row for row, result in now.rows if result != reference[row]]
        check(not wrong, f"results are wrong: rows {wrong[:10]}")
        check(now.succeeded == len(rows), f"{now.succeeded} results are said to be there, {len(rows)} are")
        check(
            set(rows) <= now.done, f"results of rows that are not done: {sorted(set(rows) - now.done)[:10]}"
        )
        check(
            len(now.done) == now.succeeded + now.failed,
            f"{len(now.done)} done, but {now.succeeded}+{now.failed}",
        )
        lost = self.known.done - now.done
        check(not lost, f"rows were done and are not any more: {sorted(lost)[:10]}")
        self.check_calls(now)
        self.known = now

    def check_calls(self, now):
        calls, before = self.server.counts.snapshot(), self.calls
        self.calls = calls
        is_retry = any(life.command[0] == "retry" for life in self.lives[self.seen :])
        for row in self.known.done:
            at = fails_at(row)[0]
            for step in (1, 2):
                may_be = is_retry and at and step >= at
                check(
                    calls[step][row] == before[step][row] or may_be,
                    f"row {row} was done, and its step {step} was called again: "
                    f"{before[step][row]} calls before, {calls[step][row]} after",
                )
        for row in now.done:
            check(calls[1][row], f"row {row} is done, and nobody called")

    def committed(self):
        return self.sink.committed(self)

    def begin_anew(self):
        self.known, self.was_restarted, self.healed = Committed(None, []), True, 0

    # at the end

    def judge(self, reference):
        results, letters = self.sink.finished(self), self.sink.letters(self)
        rows, dead = [row for row, _ in results], [letter["row"] for letter in letters]
        for row, count in Counter([*rows, *dead]).items():
            check(count == 1, f"row {row} is there {count} times")
            check(1 <= row <= self.rows, f"there is no row {row}")
        missing = set(range(1, self.rows + 1)) - set(rows) - set(dead)
        check(not missing, f"rows are in neither: {sorted(missing)[:10]}")
        wrong = [row for row, result in results if result != reference[row]]
        check(not wrong, f"results are not those of an undisturbed run: rows {wrong[:10]}")
        for letter in letters:
            step, status = fails_at(letter["row"])
            check(step, f"row {letter['row']} has a dead letter, and should not: {letter['error']}")
            names = {1: "first", 2: "second"}
            check(
                (letter["step"], letter["error"].get("status")) == (names[step], status),
                f"row {letter['row']} has a dead letter of its own kind: {letter}",
            )
        for row in rows:
            step = fails_at(row)[0]
            check(not step or self.healed & step, f"row {row} must have failed, and did not")
        if self.is_ordered and not self.healed and self.sink_name != "postgres":
            check(rows == sorted(rows), "the rows are not in order")
        self.check_leftovers()

    def check_leftovers(self):
        folder = self.disk / "out"
        left = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
        strange = [name for name in left if not re.fullmatch(self.sink.left, name)]
        check(not strange, f"files are left: {strange}")

    # files and disk

    def files(self):
        """What lies in the output's folder, byte by byte; not the journal of a database, or locks."""
        found = {}
        for path in sorted((self.disk / "out").rglob("*")):
            if path.is_file():
                found[path.name] = path.read_bytes()
        return found

    def fill_disk(self):
        with (self.disk / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free_disk(self):
        (self.disk / "ballast").unlink(missing_ok=True)

    def give_disk_back(self):
        if not self.is_mounted:
            return
        kept = self.folder / "disk-kept"
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(self.disk, kept)
        subprocess.run(["umount", "-l", str(self.disk)], capture_output=True)  # noqa: PLW1510

    def title(self):
        plan = " ".join(fault.__name__ for fault in self.plan)
        notes = f" [{'; '.join(self.notes)}]" if self.notes else ""
        return f"{self.sink_name:8} {plan}{notes}"


def applies(fault, sink):
    if fault is database_dies:
        return sink == "postgres"
    return not (fault is full_disk and sink == "postgres")


# ── all rounds ──────────────────────────────────────────────────────────────────


class Databases:
    """A PostgreSQL server for each thread, made when it is needed: a round may kill its own."""

    def __init__(self):
        self._own = threading.local()
        self._all = []

    def get(self):
        if not hasattr(self._own, "server"):
            from support.postgres import Postgres  # noqa: PLC0415  where PostgreSQL is wanted

            self._own.server = Postgres()
            self._all.append(self._own.server)
        return self._own.server

    def close(self):
        for server in self._all:
            server.close()


def has_postgres():
    sys.path.insert(0, str(ROOT / "tests"))
    from support.postgres import binary  # noqa: PLC0415  where PostgreSQL is wanted

    return binary("postgres") is not None


def undisturbed(folder):
    """{row: result} of a run in which no row fails; and with the failures, just the right ones fail."""
    found = {}
    for healed in (3, 0):
        round_ = Round(
            0, seed=0, sink="jsonl", fault=nothing, folder=folder / f"undisturbed-{healed}", database=None
        )
        round_.plan, round_.rows, round_.is_ordered = [], MOST_ROWS, False
        round_.set_up()
        try:
            round_.server.counts.healed, round_.server.counts.hurried = healed, 1
            code = Life(round_).start().wait().code
            results = dict(round_.sink.finished(round_))
            dead = {letter["row"] for letter in round_.sink.letters(round_)}
        finally:
            round_.server.close()
        said = round_.lives[0].words()
        if healed:
            check(
                code == 0 and len(results) == MOST_ROWS, f"undisturbed, it does not run: exit {code}: {said}"
            )
            found = results
        else:
            should = {row for row in found if fails_at(row)[0]}
            check(
                code == 1 and dead == should, f"undisturbed, other rows fail than should: exit {code}: {said}"
            )
    return found


def pairs_of(sinks, faults, seed):
    """Which sink and which fault a round is surely about, in random order; JSONL more often."""
    pairs = []
    for sink in sinks:
        times = 3 if sink == "jsonl" and len(sinks) > 1 else 1
        pairs += [(sink, fault) for fault in faults if applies(fault, sink)] * times
    random.Random(seed).shuffle(pairs)
    return pairs


def work(options, base):
    faults = [fault for fault in FAULTS if fault.__name__ in options.faults]
    pairs = pairs_of(options.sinks, faults, options.seed)
    reference = undisturbed(base)
    databases, stopping, lives = Databases(), threading.Event(), Counter()
    numbers = range(options.rounds) if options.only is None else [options.only]

    def one(number):
        if stopping.is_set():
            return True
        sink, fault = pairs[number % len(pairs)]
        folder = base / f"round-{number:04}"
        database = databases.get() if sink == "postgres" else None
        round_ = Round(number, seed=options.seed, sink=sink, fault=fault, folder=folder, database=database)
        try:
            told = round_.run(reference)
        except Exception as error:  # noqa: BLE001  told below
            stopping.set()
            print(f"round {number:4}  BROKEN  {round_.title()}", flush=True)
            print(f"  {error}" if isinstance(error, BrokenPromiseError) else traceback.format_exc())
            print(f"  lives: {[(*life.command, life.code) for life in round_.lives]}; kept: {folder}")
            print(f"  again: python scripts/torture.py {again(options, number)}", flush=True)
            return False
        print(f"round {number:4}  ok  {round_.title()}: {told}", flush=True)
        lives.update(fault.__name__ for fault in round_.plan)
        shutil.rmtree(folder, ignore_errors=True)
        return True

    began = time.monotonic()
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            try:
                results = [done.result() for done in as_completed([pool.submit(one, n) for n in numbers])]
            except KeyboardInterrupt:
                stopping.set()
                raise
    finally:
        databases.close()
    ran = ", ".join(f"{name} {count}" for name, count in lives.most_common())
    if not all(results):
        return False
    print(f"{len(numbers)} rounds in {time.monotonic() - began:.0f} s, every promise kept. Faults: {ran}")
    return True


def again(options, number):
    words = [f"--seed {options.seed} --only {number}"]
    if set(options.sinks) != set(SINKS):
        words.append(f"--sinks {','.join(options.sinks)}")
    if set(options.faults) != {fault.__name__ for fault in FAULTS}:
        words.append(f"--faults {','.join(options.faults)}")
    return " ".join(words)


def names(known):
    def convert(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return [name for name in known if name in chosen]

    return convert


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    faults = [fault.__name__ for fault in FAULTS]
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of a run to be repeated")
    parser.add_argument("--only", type=int, default=None, metavar="N", help="that round of it")
    parser.add_argument("--sinks", type=names(SINKS), default=[*SINKS], help=", ".join(SINKS))
    parser.add_argument("--faults", type=names(faults), default=faults, help=", ".join(faults))
    parser.add_argument("--jobs", type=int, default=2, help="rounds at once (default: 2)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--counts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.counts)
        return 0
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {options.seed}", flush=True)
    if "postgres" in options.sinks and not has_postgres():
        print("without PostgreSQL: it is not installed", flush=True)
        options.sinks = [sink for sink in options.sinks if sink != "postgres"]
    base = Path(tempfile.mkdtemp(prefix="yelpaze-torture-"))
    if not work(options, base):
        return 1
    shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

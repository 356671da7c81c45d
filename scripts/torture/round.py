"""One input taken through several lives, and what must hold after each and at the end."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter

from faults import FAULTS, applies, full_disk, server_dies, server_stalls
from faults.clock_jumps import CLOCK
from life import Life, processes_of
from outputs import SINKS, Committed
from promises import DONE, MOST_ROWS, PATIENCE, check
from service import FLOW, Server, fails_at


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
        self.server = Server(self.folder)
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

"""One process of `yelpaze`, from its start to its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from promises import DONE, KILLED, PATIENCE, BrokenPromiseError, check

YELPAZE = [sys.executable, "-m", "yelpaze.cli.main"]


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

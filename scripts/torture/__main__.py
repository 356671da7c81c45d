"""Hurt `yelpaze run` in every way there is, and check afterwards that nothing was lost or done twice.

python scripts/torture --rounds 200              seeds itself, and prints the seed
python scripts/torture --seed 7 --only 31        one round of a run again
python scripts/torture --sinks csv,sqlite --faults full_disk,kill

A round takes one input through `yelpaze run FLOW INPUT -o OUTPUT` in several lives. The flow
calls a server twice for each row and computes in worker processes; some rows always fail. In each
life something happens (one file each in `faults/`); then the same
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
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from faults import FAULTS, applies
from faults.nothing import nothing
from life import Life
from outputs import SINKS
from promises import MOST_ROWS, BrokenPromiseError, check
from round import Round
from service import fails_at, serve

ROOT = Path(__file__).parents[2]


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
            print(f"  again: python scripts/torture {again(options, number)}", flush=True)
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

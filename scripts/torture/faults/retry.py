"""Some of the rows that failed go well now; and that is disturbed, too."""

from faults.ask_to_stop import ask_to_stop
from faults.kill import kill
from faults.kill_early import kill_early
from faults.kill_in_commit import kill_in_commit
from faults.kill_worker import kill_worker
from faults.nothing import nothing


def retry(life):
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

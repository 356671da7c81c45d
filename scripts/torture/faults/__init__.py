"""What may happen to a life. Each fault starts it, does harm, and sets the exit codes that may follow."""

from faults.ask_to_stop import ask_to_stop
from faults.clock_jumps import clock_jumps
from faults.damage import damage
from faults.database_dies import database_dies
from faults.freeze import freeze
from faults.freeze_worker import freeze_worker
from faults.full_disk import full_disk
from faults.kill import kill
from faults.kill_both import kill_both
from faults.kill_early import kill_early
from faults.kill_in_commit import kill_in_commit
from faults.kill_in_the_end import kill_in_the_end
from faults.kill_worker import kill_worker
from faults.retry import retry
from faults.server_dies import server_dies
from faults.server_stalls import server_stalls
from faults.two_at_once import two_at_once

FAULTS = (
    kill,
    kill_early,
    kill_in_commit,
    kill_in_the_end,
    kill_worker,
    kill_both,
    ask_to_stop,
    freeze,
    freeze_worker,
    server_dies,
    server_stalls,
    database_dies,
    full_disk,
    clock_jumps,
    damage,
    two_at_once,
    retry,
)


def applies(fault, sink):
    if fault is database_dies:
        return sink == "postgres"
    return not (fault is full_disk and sink == "postgres")

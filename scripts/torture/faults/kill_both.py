"""SIGKILL for workers, and then for their parent."""

from faults.kill_worker import kill_worker


def kill_both(life):
    kill_worker(life)
    life.sleep(life.rng.choice((0, 0.01, life.rng.uniform(0, 0.8))))
    life.kill()

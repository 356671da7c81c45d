"""While the last commit is made, and the process goes."""


def kill_in_the_end(life):
    counts, rows = life.round.server.counts, life.round.rows
    life.start()
    life.until(lambda: sum(map(bool, counts.snapshot()[1])) >= rows)
    life.sleep(life.rng.uniform(0, 0.5))
    life.kill()

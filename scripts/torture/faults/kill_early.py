"""While it starts, finds out where to go on, and cuts the files back."""


def kill_early(life):
    life.start().sleep(life.rng.uniform(0, 0.8))
    life.kill()

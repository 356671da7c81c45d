"""The server is killed, and comes back."""

import time


def server_dies(life):
    server = life.round.server
    if not life.start().in_the_middle():
        return
    server.die()
    time.sleep(life.rng.uniform(0.1, 2.5))
    if life.rng.random() < 0.2:
        life.kill()
    server.start()

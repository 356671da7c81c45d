"""It accepts and answers nothing, for longer than an attempt may take, or than all attempts."""

import signal


def server_stalls(life):
    server = life.round.server.process
    if not life.start().in_the_middle():
        return
    server.send_signal(signal.SIGSTOP)
    life.sleep(life.rng.uniform(1.2, 4.0))
    if life.rng.random() < 0.2:
        life.kill()
    server.send_signal(signal.SIGCONT)

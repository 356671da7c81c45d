"""SIGKILL at any moment."""


def kill(life):
    life.start().moment()
    life.kill()

"""The database is killed, and comes back."""


def database_dies(life):
    database = life.round.database
    life.start().moment()
    database.kill()
    life.sleep(life.rng.uniform(0.1, 2.0))
    if life.rng.random() < 0.3:
        life.kill()
    database.start()

"""A log of records: topics, partitions, consumer groups; in an SQLite file or in Kafka.

protocol.py   what every backend can do
sqlite.py     one machine: an SQLite file
kafka.py      many machines: Kafka, through librdkafka
spool.py      keeps what cannot be published while the brokers are away
positions.py  offsets in the store, in the transaction of a consumer's effect
schema.py     what the records of a topic hold
opening.py    which backend a name means
"""

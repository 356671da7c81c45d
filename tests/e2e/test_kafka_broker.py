"""The broker that other tests use, by itself: it keeps its records, hangs when told, and checks who comes."""

import socket
import uuid
from contextlib import ExitStack

import pytest

from support.kafka import Kafka, is_installed
from support.needed import absent, needs
from support.waiting import until

pytestmark = pytest.mark.slow

RECORDS = [(f"key{number}".encode(), f"value {number}".encode()) for number in range(1000)]


@pytest.fixture
def brokers():
    """A factory of brokers: `brokers(**options)` starts one, as `support.kafka.Kafka` says."""
    needs("confluent_kafka")
    if not is_installed():
        absent("Kafka (scripts/servers.sh slow)")
    with ExitStack() as stack:

        def start(**options):
            broker = Kafka(**options)
            stack.callback(broker.close)
            return broker

        yield start


def publish(settings):
    """Publish the records to a new topic; its name."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    topic = f"t{uuid.uuid4().hex}"
    admin = AdminClient(settings)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    answers = []
    producer = Producer(settings)
    for key, value in RECORDS:
        producer.produce(topic, value, key, on_delivery=lambda error, _: answers.append(error))
    assert producer.flush(30) == 0
    assert answers == [None] * len(RECORDS)
    return topic


def read(settings, topic):
    """As many records as were published, from the start of the topic."""
    from confluent_kafka import Consumer

    consumer = Consumer(settings | {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = []

    def is_complete():
        found.extend(consumer.consume(len(RECORDS), 1))
        return len(found) >= len(RECORDS)

    try:
        until(is_complete)
    finally:
        consumer.close()
    assert [one.error() for one in found] == [None] * len(found)
    return [(one.key(), one.value()) for one in found]


def test_records_come_back(kafka):
    settings = {"bootstrap.servers": kafka.bootstrap}
    assert read(settings, publish(settings)) == RECORDS


def test_kill_and_stop_lose_nothing(brokers):
    broker = brokers()
    settings = {"bootstrap.servers": broker.bootstrap}
    topic = publish(settings)
    for end in (broker.kill, broker.stop):
        end()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", broker.port))
        broker.start()
        assert read(settings, topic) == RECORDS


def test_frozen_it_takes_connections_and_does_not_answer(brokers):
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    broker = brokers()
    settings = {"bootstrap.servers": broker.bootstrap}
    topic = publish(settings)
    broker.freeze()
    socket.create_connection(("127.0.0.1", broker.port), timeout=30).close()
    # For longer than its session with the controller lasts.
    with pytest.raises(KafkaException):
        AdminClient(settings).list_topics(timeout=3)
    broker.thaw()
    assert read(settings, topic) == RECORDS


def test_sasl_asks_for_the_password(brokers):
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

    broker = brokers(sasl=("alice", "right"))
    settings = {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": "right",
    }
    assert read(settings, publish(settings)) == RECORDS

    errors = []
    stranger = AdminClient(settings | {"sasl.password": "wrong", "error_cb": errors.append})

    def is_refused():
        stranger.poll(0.1)
        return KafkaError._AUTHENTICATION in [error.code() for error in errors]

    until(is_refused)


@pytest.mark.parametrize("sasl", [None, ("alice", "right")], ids=["alone", "with a password"])
def test_tls_with_the_ca_of_the_tests(brokers, ca, ca_file, tmp_path, sasl):
    own = tmp_path / "own.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(own))
    broker = brokers(tls=(ca_file, str(own)), sasl=sasl)
    settings = {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SSL",
        "ssl.ca.location": ca_file,
    }
    if sasl:
        settings |= {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
        settings |= {"sasl.username": sasl[0], "sasl.password": sasl[1]}
    assert read(settings, publish(settings)) == RECORDS

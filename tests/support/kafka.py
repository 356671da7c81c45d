"""A Kafka broker of its own: on free ports, in a folder that goes with it."""

import base64
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

from support.nginx import wait_for_port
from support.ports import free_port
from support.waiting import until

JARS = Path(__file__).parents[2] / ".cache" / "kafka-4.1.0"
_PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (True, False): "SASL_PLAINTEXT",
    (False, True): "SSL",
    (True, True): "SASL_SSL",
}


def is_installed() -> bool:
    """Whether the jars are there, and Java."""
    return JARS.is_dir() and shutil.which("java") is not None


class Kafka:
    """`bootstrap` names it. `kill`, `freeze`, `thaw`, `stop` and `start` are for tests of faults.

    It creates no topics by itself. Its records are still there after `kill` and `start`.

    With `sasl`, a user name and a password of ASCII letters and digits, clients log in with PLAIN.
    With `tls`, the PEM files of a CA and of a certificate chain with its key, they use TLS; they may show a
    certificate of the CA.
    """

    def __init__(self, *, sasl: tuple[str, str] | None = None, tls: tuple[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="yelpaze-kafka-"))
        self._settings = self._folder / "server.properties"
        self._log = self._folder / "log"
        self._process: subprocess.Popen | None = None
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._inside_port = free_port()
        options = self._options() | self._protection(sasl, tls)
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        try:
            self._format()
            self.start()
        except BaseException:
            self.close()
            raise

    def _options(self) -> dict[str, object]:
        controller = f"127.0.0.1:{free_port()}"
        # The broker itself, and `start`, use a listener that asks for no password.
        listeners = f"CLIENTS://{self.bootstrap},INSIDE://127.0.0.1:{self._inside_port}"
        options: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INSIDE",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 2 << 20,
            # It is back only when its session from before the kill has ended: 9 s later, with the defaults.
            "broker.session.timeout.ms": 1500,
            "broker.heartbeat.interval.ms": 300,
        }
        for topic in ("transaction.state.log", "share.coordinator.state.topic"):
            options[f"{topic}.min.isr"] = 1
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            options[f"{topic}.replication.factor"] = 1
            options[f"{topic}.num.partitions"] = 4
        return options

    def _protection(self, sasl: tuple[str, str] | None, tls: tuple[str, str] | None) -> dict[str, object]:
        protocol = _PROTOCOLS[sasl is not None, tls is not None]
        protocols = f"CLIENTS:{protocol},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT"
        options: dict[str, object] = {"listener.security.protocol.map": protocols}
        if sasl:
            user, password = sasl
            module = "org.apache.kafka.common.security.plain.PlainLoginModule"
            options["sasl.enabled.mechanisms"] = "PLAIN"
            options["listener.name.clients.plain.sasl.jaas.config"] = (
                f'{module} required user_{user}="{password}";'
            )
        if tls:
            trusted, own = tls
            store = self._folder / "store.pem"
            store.write_bytes(_for_java(Path(own).read_bytes()))
            options |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": store,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": trusted,
                "ssl.client.auth": "requested",
            }
        return options

    def _command(self, program: str, *arguments: object) -> list[str]:
        # With little memory, and quick to start. What libraries unpack goes into the folder.
        flags = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        flags.append(f"-Djava.io.tmpdir={self._folder}")
        return ["java", *flags, "-cp", f"{JARS}/*", program, *map(str, arguments)]

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._command(
            "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", self._settings
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Kafka did not start: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        from confluent_kafka.admin import AdminClient

        with self._log.open("wb") as log:
            command = self._command("kafka.Kafka", self._settings)
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            for port in (self.port, self._inside_port):
                wait_for_port(port, self._process)
        except RuntimeError:
            raise RuntimeError(f"Kafka did not start: {self._log.read_text()}") from None
        # It listens before it has taken up its topics.
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{self._inside_port}"})
        until(lambda: client.list_topics(timeout=30).brokers)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def freeze(self) -> None:
        """As a machine that hangs: connections stay open, and nothing answers."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of `freeze`."""
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """As an orderly restart would: it says goodbye."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _for_java(pem: bytes) -> bytes:
    """The same chain and key. Kafka reads a key only in PKCS #8."""
    key = load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(one.public_bytes(Encoding.PEM) for one in load_pem_x509_certificates(pem))

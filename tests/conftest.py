"""Fixtures: certificates, fault servers, real servers, and the rule about absent ones."""

import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from support.demo import start_demo, stop
from support.kafka import Kafka
from support.kafka import is_installed as kafka_is_installed
from support.live import Gateway
from support.needed import absent, needs
from support.nginx import Nginx
from support.postgres import Postgres, binary
from support.raw import RawServer
from support.redis_server import Redis
from support.service import Place, Service

# The same examples in every run, however slow the machine is just now.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# Whoever runs the tests in the background (nohup, `&`) ignores these, and every process that a test starts
# would do so as well.
for _number, _handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(autouse=True)
def _signals_as_they_were():
    """A command that a test runs in this process ignores signals at its end, and so would later processes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _runs_of_their_own(tmp_path_factory: pytest.TempPathFactory):
    """Tests list their runs, and have their local workers, elsewhere than the user does."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def service(request: pytest.FixtureRequest):
    """A service that answers as the module's `answer_of(call)` says, if it has one."""
    service = Service(getattr(request.module, "answer_of", None))
    yield service
    service.stop()


@pytest.fixture
def place(tmp_path: Path, service: Service):
    """A folder to run `yelpaze` in; `URL` in its flows is `service`."""
    place = Place(tmp_path, service)
    yield place
    place.stop()


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest):
    """The URL of `yelpaze demo serve`, started with the module's `SHOP_FLAGS`, if it has any."""
    process, url = start_demo(*getattr(request.module, "SHOP_FLAGS", ()))
    yield url
    stop(process)


@pytest.fixture
async def raw():
    """A factory of fault servers: `await raw(script)` gives the base URL."""
    servers: list[RawServer] = []

    async def start(script, **options) -> RawServer:
        server = RawServer(script, **options)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture(scope="session")
def nginx(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory):
    if shutil.which("nginx") is None:
        absent("nginx")
    server = Nginx(tmp_path_factory.mktemp("nginx"), ca)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres():
    """A server; tests keep out of each other's way by the names of their tables."""
    needs("psycopg")
    if binary("initdb") is None:
        absent("PostgreSQL (initdb)")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store, of each kind in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory):
    """A server that keeps nothing over a restart."""
    needs("redis")
    if shutil.which("redis-server") is None:
        absent("Redis (redis-server)")
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def kafka():
    """A broker; tests keep out of each other's way by the names of their topics and groups."""
    needs("confluent_kafka")
    if not kafka_is_installed():
        absent("Kafka (scripts/servers.sh slow)")
    server = Kafka()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory):
    """A factory of gateways: `gateways(config, *flags)` starts one, as `support.live.Gateway` says."""
    needs("uvloop", "httptools", "jwt", "yaml")
    with ExitStack() as stack:

        def start(config=None, *flags, **options) -> Gateway:
            gateway = Gateway(tmp_path_factory.mktemp("live"), config, *flags, **options)
            stack.callback(gateway.stop)
            return gateway

        yield start

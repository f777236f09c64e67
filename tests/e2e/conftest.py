"""Fixtures: services that are stopped and looked after at the end of each test."""
import pytest

from client import HttpClient
from harness import EXAMPLES, HAS_FAILPOINTS, Service, compile_module, worker_ini
from upgrading import Upgradable


def pytest_collection_modifyitems(config, items):
    """Tests that need fail-points do not exist for a build without them."""
    if HAS_FAILPOINTS:
        return
    needing = [item for item in items if item.get_closest_marker("failpoints")]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture
def new_service():
    """Makes services that have not been started; all are closed and checked at the end of the test."""
    made = []

    def make(ini=None, modules=("http-echo",), **kwargs):
        service = Service(ini, **kwargs)
        made.append(service)
        for module in modules:
            service.install(EXAMPLES / module / (module + ".so"))
        return service

    yield make
    errors = []
    for service in made:
        try:
            service.close()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture
def upgradable(new_service):
    """upgradable(count=1) is a service, not started, with a program of its own to replace."""
    return lambda **settings: Upgradable(new_service, **settings)


@pytest.fixture
def serve(new_service):
    """Starts a service with one worker "web": serve(count=1, idle_timeout="1s", master={...})."""

    def make(ini=None, **settings):
        source = settings.pop("source", None)
        if source is not None:
            settings.setdefault("module", "./app.so")
        service = new_service(ini or worker_ini(**settings))
        if source is not None:
            service.compile(source, "app.so")
        return service.start()

    return make


@pytest.fixture(scope="module")
def malformed_service():
    """One service for all rows of the table: what one of them breaks, the next one notices."""
    service = Service(worker_ini(count=1))
    service.install(EXAMPLES / "http-echo" / "http-echo.so")
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def connect():
    """Opens clients that are closed at the end of the test."""
    opened = []

    def make(address, **kwargs):
        client = HttpClient(getattr(address, "port", address), **kwargs)
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture(scope="session")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("modules")


@pytest.fixture
def compiled(module_folder):
    """compiled(source) is the path of the module made from that C text, compiled once for all tests."""
    def make(source):
        path = module_folder / ("m%x.so" % (hash(source) & 0xffffffffffff))
        return path if path.exists() else compile_module(source, path)

    return make

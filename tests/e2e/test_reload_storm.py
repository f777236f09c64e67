"""The main promise: reload after reload under load, and no client notices anything."""
import pytest

from harness import SOAK, text_module_source, worker_ini
from storm import RELOADS, SHAPES, Storm


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("reuse_port", ["no", "yes"])
@pytest.mark.parametrize("shape", SHAPES)
def test_reloads_under_load_lose_nothing(serve, shape, reuse_port):
    service = serve(count=2, reuse_port=reuse_port)
    with Storm(service, *SHAPES[shape]) as storm:
        storm.reload_again_and_again()
    storm.assert_nothing_lost()
    # Every generation has answered somebody: the reloads were no empty gesture.
    assert storm.report["versions"] == RELOADS + 1


@pytest.mark.timeout(300)
def test_new_code_answers_after_each_reload(serve, compiled):
    """The module itself changes each time, copied over the original while it is being served."""
    service = serve(count=2, source=text_module_source("version 0"))
    modules = [compiled(text_module_source("version %d" % number)) for number in range(1, 6)]
    with Storm(service, "--connections", "64", "--one-shot", "2", versions="body") as storm:
        storm.reload_again_and_again(len(modules), before=lambda n: service.overwrite(modules[n], "app.so"))
    storm.assert_nothing_lost()
    assert set(storm.report["version_names"]) == {"version %d" % number for number in range(6)}


@pytest.mark.timeout(300)
def test_stop_first_with_a_sibling_loses_nothing(serve):
    service = serve(count=2, strategy="stop-first")
    with Storm(service, "--connections", "32", "--one-shot", "2") as storm:
        storm.reload_again_and_again(5)
    storm.assert_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_idle_connections_are_passed_beside_busy_ones(serve):
    service = serve(count=2)
    with Storm(service, "--connections", "16", "--idle", 5000 if SOAK else 1000) as storm:
        storm.reload_again_and_again(3)
    storm.assert_nothing_lost()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", ["busy", "one-shot"])
def test_failing_reloads_under_load_lose_nothing(serve, shape):
    service = serve(count=2)
    (service.folder / "http-echo.so").write_bytes(b"\x7fELF and nothing else")
    with Storm(service, *SHAPES[shape]) as storm:
        for _ in range(5):
            assert service.command("reload").returncode != 0
    storm.assert_nothing_lost()
    assert list(storm.report["version_names"]) == ["1"]


@pytest.mark.timeout(300)
def test_reloads_of_a_unix_socket_lose_nothing(new_service):
    service = new_service(worker_ini(count=2, listen="http+unix://{folder}/web.sock"))
    service.start()
    with Storm(service, "--connections", "32", "--one-shot", "2", unix=service.folder / "web.sock") as storm:
        storm.reload_again_and_again(5)
    storm.assert_nothing_lost()

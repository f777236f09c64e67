"""`make install` to a folder of its own, and building against nothing but what it has put there."""
import os
import subprocess

import pytest

from client import get
from harness import BUILD, ROOT, SANITIZED, Service, free_port, text_module_source, worker_ini

pytestmark = pytest.mark.skipif(SANITIZED, reason="the release build is what gets installed")

START_PROGRAM = """
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, NULL, "installed");
}
int main(int argc, char **argv)
{
    baton_worker_new("http://127.0.0.1:%d", .name = "web", .callbacks = {.on_request = on_request});
    return baton_run(argc, argv);
}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Staged as a packager does it; used where it was staged."""
    stage = tmp_path_factory.mktemp("stage")
    meson = "/usr/bin/meson" if os.path.exists("/usr/bin/meson") else "meson"
    subprocess.run([meson, "install", "-C", str(BUILD), "--no-rebuild", "--destdir", str(stage)], check=True,
                   capture_output=True)
    return Installed(stage)


class Installed:
    def __init__(self, stage):
        self.stage = stage
        self.pc = next(stage.rglob("baton.pc"))
        self.baton = next(path for path in stage.rglob("bin/baton"))
        self.library = self.pc.parent.parent

    def flags(self, *args):
        env = dict(os.environ, PKG_CONFIG_PATH=str(self.pc.parent), PKG_CONFIG_SYSROOT_DIR=str(self.stage))
        return subprocess.run(["pkg-config", *args, "baton"], env=env, check=True, capture_output=True,
                              text=True).stdout.split()


def test_everything_promised_is_installed(installed):
    names = {path.name for path in installed.stage.rglob("*") if not path.is_dir()}
    assert {"baton", "baton.pc", "baton.h", "libbaton.a", "libbaton.so", "libbaton.so.0"} <= names
    headers = {path.name for path in (ROOT / "include" / "baton").glob("*.h")}
    assert headers <= names
    assert installed.flags("--modversion") == ["0.1.0"]


def test_module_built_with_pkg_config_is_served_by_the_installed_command(installed):
    service = Service(worker_ini(count=1, module="./app.so"))
    try:
        (service.folder / "app.c").write_text(text_module_source("installed"))
        subprocess.run(["cc", "-shared", "-fPIC", *installed.flags("--cflags"), "-o", str(service.folder / "app.so"),
                        str(service.folder / "app.c")], check=True)
        service.program[0] = str(installed.baton)
        service.start()
        assert get(service.port).text == "installed"
        service.reload()
        assert get(service.port).text == "installed"
    finally:
        service.close()


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_start_program_built_with_pkg_config_runs(installed, static):
    service = Service(env={"LD_LIBRARY_PATH": str(installed.library)})
    try:
        service.port = free_port()
        (service.folder / "own.c").write_text(START_PROGRAM % service.port)
        flags = installed.flags("--cflags", "--libs", *(["--static"] if static else []))
        if static:
            flags = [str(installed.library / "libbaton.a") if flag == "-lbaton" else flag for flag in flags]
        subprocess.run(["cc", "-o", str(service.folder / "own"), str(service.folder / "own.c"), *flags], check=True)
        service.run_program(service.folder / "own")
        service.start()
        assert get(service.port).text == "installed"
        service.reload()
    finally:
        service.close()

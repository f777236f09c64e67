"""Worker processes at their edges: what a crash tells of code that is only just being loaded, and what an idle or a
leaving process costs."""
import re
import subprocess

import pytest

from client import get
from harness import BUILD, DEADLINE, ROOT, Service, free_port

CRASHES_ON_LOAD = """
#include <baton.h>
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "never seen");
}
__attribute__((constructor)) static void die(void)
{
    *(volatile int *) 0x18 = 1;
}
BATON_MODULE(.on_request = on_request);
"""

# on_worker_start loads the module, then calls what the module's constructor has left with the program.
HOOKED_PROGRAM = """
#include <baton.h>
void (*hook)(void);
static int on_worker_start(baton_worker *worker)
{
    int err = baton_worker_load(worker, "hooked.so");
    if (err == 0)
        hook();
    return err;
}
int main(int argc, char **argv)
{
    baton_worker_new("http://127.0.0.1:%d", .module_files = "hooked.so",
                     .callbacks = {.on_worker_start = on_worker_start});
    return baton_run(argc, argv);
}
"""

HOOKED_MODULE = """
#include <baton.h>
extern void (*hook)(void);
static void fall(void)
{
    *(volatile int *) 0x18 = 1;
}
__attribute__((constructor)) static void offer(void)
{
    hook = fall;
}
BATON_MODULE(.on_worker_stop = NULL);
"""


@pytest.fixture
def program():
    """A start program of HOOKED_PROGRAM, not started."""
    service = Service(env={"LD_LIBRARY_PATH": str(BUILD / "src")})
    service.port = free_port()
    service.crashes_expected = True
    source = service.folder / "hooked.c"
    source.write_text(HOOKED_PROGRAM % service.port)
    subprocess.run(["cc", "-g", "-rdynamic", "-I", str(ROOT / "include"), "-o", str(service.folder / "program"),
                    str(source), "-L", str(BUILD / "src"), "-lbaton"], check=True)
    service.run_program(service.folder / "program")
    try:
        yield service
    finally:
        service.close()


def symbol_at(file, offset):
    """The function that holds the address, as addr2line says."""
    words = subprocess.run(["addr2line", "-f", "-e", str(file), hex(offset)], check=True, capture_output=True, text=True)
    return words.stdout.split()[0]


def place_of_crash(text, file):
    found = re.search(r"crashed signal=11 at=%s\+0x([0-9a-f]+) address=0x18" % re.escape(file), text)
    assert found, text
    return int(found.group(1), 16)


def test_crash_of_a_constructor_names_the_module(serve):
    service = serve(count=1)
    service.crashes_expected = True
    service.compile(CRASHES_ON_LOAD, "http-echo.so")
    result = service.command("reload")
    assert result.returncode == 1
    offset = place_of_crash(result.stderr, "http-echo.so")
    assert symbol_at(service.folder / "http-echo.so", offset) == "die"
    assert get(service.port).status == 200


def test_crash_in_on_worker_start_names_the_module_that_it_has_loaded(program):
    program.compile(HOOKED_MODULE, "hooked.so")
    program.spawn()
    program.exit_code_expected = program.process.wait(DEADLINE)
    assert program.exit_code_expected == 1
    assert symbol_at(program.folder / "hooked.so", place_of_crash(program.log, "hooked.so")) == "fall"

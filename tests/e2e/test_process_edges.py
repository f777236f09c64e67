"""Worker processes at their edges: what a crash tells of code that is only just being loaded, and callbacks that do
what nobody expects."""
import re
import socket
import subprocess

import pytest

from client import get
from harness import BUILD, DEADLINE, ROOT, SANITIZED, Service, free_port, worker_ini

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
    compiler = ["clang", "-fsanitize=address,undefined"] if SANITIZED else ["cc"]
    source = service.folder / "hooked.c"
    source.write_text(HOOKED_PROGRAM % service.port)
    service.run_program(service.folder / "program")
    try:
        subprocess.run([*compiler, "-g", "-rdynamic", "-I", str(ROOT / "include"), "-o", service.program[0],
                        str(source), "-L", str(BUILD / "src"), "-lbaton"], check=True)
        yield service
    finally:
        service.close()


# Does in each callback of the pass whatever the public calls allow, to its own connection and to all others.
UNRULY_MODULE = """
#include <baton.h>
#include <stdlib.h>
#define MOST 512
static baton_conn *known[MOST];
static size_t count, turn;
static baton_conn *promised[MOST]; /* to timers that have not run yet */
static bool is_stopping;
static void late(void *arg)
{
    baton_conn **promise = arg;
    baton_conn *conn = *promise;
    char text[64];
    *promise = NULL;
    (void) baton_send(conn, "late", 4);
    baton_conn_remote(conn, text, sizeof text);
    baton_conn_local(conn, text, sizeof text);
    baton_close(conn);
    baton_destroy(conn);
    baton_conn_unref(conn);
}
static void promise(baton_conn *conn)
{
    for (size_t i = 0; i < MOST && !is_stopping; i++) {
        if (promised[i] != NULL)
            continue;
        promised[i] = baton_conn_ref(conn);
        baton_timer_once(turn % 3, late, &promised[i]);
        return;
    }
}
static void on_worker_stop(baton_worker *worker)
{
    (void) worker;
    is_stopping = true;
    for (size_t i = 0; i < MOST; i++) {
        if (promised[i] != NULL)
            baton_conn_unref(promised[i]);
        promised[i] = NULL;
    }
}
static void meddle(baton_conn *self)
{
    for (size_t i = 0; i < count; i++) {
        baton_conn *other = known[(i + turn) % count];
        (void) baton_send(other, "meddled", 7);
        if (++turn % 7 == 0)
            baton_close(other);
        if (turn % 11 == 0)
            baton_destroy(other);
        if (turn % 13 == 0)
            promise(self);
        if (turn % 17 == 0 && baton_conn_user(other) == NULL && baton_conn_is_open(other))
            baton_conn_set_user(other, malloc(1));
    }
}
static void keep(baton_conn *conn)
{
    if (count < MOST)
        known[count++] = baton_conn_ref(conn);
}
static void on_connect(baton_conn *conn)
{
    keep(conn);
    baton_conn_set_user(conn, malloc(1));
}
static void on_message(baton_conn *conn, baton_str message)
{
    (void) baton_send(conn, message.data, message.len);
}
static int on_pass(baton_conn *conn, baton_pass *pass)
{
    meddle(conn);
    return turn % 5 == 0 ? -1 : baton_pass_write(pass, "state", 5);
}
static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    (void) version;
    (void) state;
    meddle(conn);
    if (turn % 3 == 0)
        return -1;
    keep(conn);
    baton_conn_set_user(conn, malloc(1));
    if (turn % 4 == 0)
        baton_close(conn);
    if (turn % 5 == 0)
        baton_destroy(conn);
    return 0;
}
static void forget(baton_conn *conn)
{
    free(baton_conn_user(conn));
    baton_conn_set_user(conn, NULL);
    for (size_t i = 0; i < count; i++) {
        if (known[i] == conn) {
            known[i] = known[--count];
            baton_conn_unref(conn);
            break;
        }
    }
    meddle(conn);
}
BATON_MODULE(.on_connect = on_connect, .on_message = on_message, .on_pass = on_pass, .on_take = on_take,
             .on_passed = forget, .on_close = forget, .on_worker_stop = on_worker_stop);
"""


def symbol_at(file, offset):
    """The function that holds the address, as addr2line says."""
    words = subprocess.run(["addr2line", "-f", "-e", str(file), hex(offset)], check=True, stdout=subprocess.PIPE)
    return words.stdout.decode().split()[0]


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


def test_callbacks_that_meddle_with_every_connection_do_no_harm(new_service):
    service = new_service(worker_ini(listen="text://127.0.0.1:{port}", count=2, module="./unruly.so",
                                     drain_timeout="1s"))
    service.compile(UNRULY_MODULE, "unruly.so")
    service.start()
    for _ in range(4):
        clients = []
        for _ in range(60):
            clients.append(socket.create_connection(("127.0.0.1", service.port), DEADLINE))
            clients[-1].sendall(b"half")
        service.reload()
        for client in clients:
            client.close()
    with socket.create_connection(("127.0.0.1", service.port), DEADLINE) as client:
        client.sendall(b"hello\n")
        assert client.recv(6) == b"hello\n"

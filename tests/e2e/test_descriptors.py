"""Descriptors that run out, in a process, its successor and the master: what is new waits or is refused, what is there
goes on."""
import contextlib
import os
import resource

import pytest

from client import build_request, get
from harness import wait_until

# Its process has as few descriptors free as the file "spare" says, from its start on.
LIMITED = r"""
#include <baton.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
static int highest(void)
{
    int most = 0;
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        most = atoi(entry->d_name) > most && atoi(entry->d_name) != dirfd(folder) ? atoi(entry->d_name) : most;
    closedir(folder);
    return most;
}
static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    int spare = 0;
    struct rlimit limit;
    FILE *file = fopen("spare", "r");
    if (file == NULL)
        return 0;
    int has_number = fscanf(file, "%d", &spare);
    fclose(file);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t) (highest() + 1 + spare);
    return has_number == 1 ? setrlimit(RLIMIT_NOFILE, &limit) : -1;
}
static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long) baton_generation());
    baton_reply_header(conn, "X-Generation", number);
    baton_reply(conn, 200, "text/plain", "hi");
}
BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);
"""


class few_descriptors:
    """with few_descriptors(pid, spare): the process can open `spare` more; those that it has stay, wherever they are."""

    def __init__(self, pid, spare):
        self.pid = pid
        self.limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir("/proc/%d/fd" % pid)}
        free = [number for number in range(max(used) + spare + 2) if number not in used]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], self.limits[1]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):  # it has been replaced
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.limits)


def no_commands_left(service):
    """The master has closed the connection of each command: what it has open is what it keeps."""
    path = str(service.control_socket)
    with open("/proc/net/unix") as sockets:
        return not [line for line in sockets if line.rstrip().endswith(path) and line.split()[5] == "03"]


def open_clients(service, connect, count):
    clients = [connect(service) for _ in range(count)]
    assert all(client.request("/").status == 200 for client in clients)
    return clients


# ---- a process ----

def test_new_clients_of_a_full_process_wait_and_the_old_ones_are_served(serve, connect):
    service = serve(count=1)
    clients = open_clients(service, connect, 20)
    with few_descriptors(service.pids()[0], 0):
        waiting = [connect(service).send(build_request("/")) for _ in range(5)]
        wait_until(lambda: "accept-paused" in service.log, "accepting is paused")
        assert all(client.request("/").status == 200 for client in clients)
        assert all(client.is_quiet() for client in waiting)
    assert all(client.read_response().status == 200 for client in waiting)


def test_clients_that_wait_for_a_full_process_are_served_by_its_successor(serve, connect):
    service = serve(count=1)
    clients = open_clients(service, connect, 20)
    with few_descriptors(service.pids()[0], 0):
        waiting = [connect(service).send(build_request("/")) for _ in range(5)]
        wait_until(lambda: "accept-paused" in service.log, "accepting is paused")
        service.reload()
        assert all(client.read_response().generation == 2 for client in waiting)
    assert all(client.request("/").generation == 2 for client in clients)


# ---- a successor ----

@pytest.mark.parametrize("spare", [0, 5])
def test_connections_a_full_successor_has_no_room_for_stay_until_it_has(serve, connect, spare):
    service = serve(count=1, source=LIMITED)
    clients = open_clients(service, connect, 20)
    (service.folder / "spare").write_text(str(spare))
    service.reload()
    successor = service.pids()[0]
    generations = [client.request("/").generation for client in clients]
    assert 1 in generations, "the successor had room for all: this test tests nothing"
    limits = resource.prlimit(successor, resource.RLIMIT_NOFILE)
    resource.prlimit(successor, resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    wait_until(lambda: not service.processes(state="draining"), "the old process has passed the rest")
    assert {client.request("/").generation for client in clients} == {2}
    assert get(service.port).generation == 2


# ---- the master ----

def test_command_to_a_full_master_fails_and_later_works(serve):
    service = serve(count=1)
    wait_until(lambda: no_commands_left(service), "the commands before have ended")
    with few_descriptors(service.pid, 0):
        result = service.command("status")
        assert result.returncode == 0 or result.stderr.strip(), result
        assert get(service.port).text == "hi"
    assert service.status()["state"] == "running"


@pytest.mark.parametrize("spare", [1, 2])
def test_reload_of_a_full_master_fails_with_the_reason_and_changes_nothing(serve, connect, spare):
    service = serve(count=2)
    clients = open_clients(service, connect, 20)
    pids = service.pids()
    wait_until(lambda: no_commands_left(service), "the commands before have ended")
    with few_descriptors(service.pid, spare):
        result = service.command("reload")
        assert result.returncode == 1
        assert "reload failed" in result.stderr and "Too many open files" in result.stderr, result
        assert all(client.request("/").generation == 1 for client in clients)
    assert service.pids() == pids
    service.reload()
    assert all(client.request("/").generation == 3 for client in clients)

/* proc/listen.c: the listening sockets that one process accepts from, and who of their queues is heard out at the end.
 * Must not know who else accepts from them. */
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <net/conn.h>
#include <proc/process.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void on_end(bt_acceptor *acceptor)
{
    bt_list_remove(&acceptor->node);
    bt_orphan_port_closed(acceptor->owner);
    bt_process_check_done(acceptor->owner);
}

static void closed(bt_acceptor *acceptor)
{
    free(acceptor);
}

/* Takes `fd` in any case. NULL with *err set. */
static bt_acceptor *open_acceptor(bt_process *process, int fd, int *err)
{
    bt_acceptor *acceptor = bt_malloc(sizeof *acceptor);
    *err = acceptor == NULL ? -ENOMEM : bt_acceptor_start(acceptor, &process->loop, &process->endpoint, fd);
    if (*err < 0) {
        free(acceptor);
        close(fd);
        return NULL;
    }
    acceptor->owner = process;
    acceptor->on_end = on_end;
    acceptor->closed = closed;
    bt_list_append(&process->acceptors, &acceptor->node);
    return acceptor;
}

int bt_process_listen(bt_process *process)
{
    int err = 0;
    for (size_t i = 0; i < process->start->listen_count && err == 0; i++)
        open_acceptor(process, process->start->listen_fds[i], &err);
    return err;
}

void bt_process_listen_last(bt_process *process, int fd)
{
    int err = -EBADF;
    bt_acceptor *acceptor = fd < 0 ? NULL : open_acceptor(process, fd, &err);
    if (acceptor != NULL)
        bt_acceptor_finish(acceptor);
    else
        bt_log(BT_LOG_ERROR, "queue-lost error=\"%s\"", fd < 0 ? "no descriptor is free" : uv_strerror(err));
}

void bt_process_stop_listening(bt_process *process)
{
    bt_list_each (node, &process->acceptors)
        bt_acceptor_stop(bt_container(node, bt_acceptor, node));
}

void bt_process_cede_listening(bt_process *process)
{
    bt_list_each (node, &process->acceptors) {
        bt_acceptor *acceptor = bt_container(node, bt_acceptor, node);
        if (!acceptor->is_finishing)
            bt_acceptor_stop(acceptor);
    }
}

void bt_process_finish_listening(bt_process *process)
{
    bt_list_each (node, &process->acceptors)
        bt_acceptor_finish(bt_container(node, bt_acceptor, node));
}

/* A request that is in the kernel when the process is told to leave has been sent in good faith, and a client that was
 * accepted a moment ago is about to send its first one. */
bool bt_process_hears_out(baton_conn *conn)
{
    int unread = 0;
    if (conn->proto != NULL || bt_buf_len(&conn->in) > 0)
        return false; /* it is being heard: the protocol knows what is left to be done */
    if (ioctl(conn->fd, FIONREAD, &unread) == 0 && unread > 0)
        return true;
    if (conn->bytes_read > 0 || conn->bytes_written > 0)
        return false;
    uint64_t deadline_ms = conn->timeout.deadline_ms;
    if (deadline_ms == 0 || deadline_ms > bt_loop_now(conn->loop) + BT_FIRST_BYTES_MS)
        bt_conn_expire_in(conn, BT_FIRST_BYTES_MS);
    return true;
}

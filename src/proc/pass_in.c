/* proc/pass_in.c: receives connections, rebuilds them, answers, and serves them.
 * Treats every message as hostile. Must not know who sends, nor poll a connection before its verdict is sent. */
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <proc/pass_in.h>
#include <proc/pass_state.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* After this many messages the loop turns, so that requests are served meanwhile. */
#define MESSAGES_PER_EVENT 8

static void on_event(uv_poll_t *poll, int status, int events);

/* A broken channel is no failure: its end will be read. */
static int say_hello(const bt_endpoint *endpoint, int fd)
{
    bt_pass_hello hello = bt_pass_hello_of(endpoint->callbacks);
    bt_buf message = {0};
    int err = bt_pass_add_hello(&message, &hello);
    if (err == 0 && send(fd, bt_buf_head(&message), bt_buf_len(&message), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        err = errno == EPIPE || errno == ECONNRESET ? 0 : -errno;
    bt_buf_free(&message);
    return err;
}

int bt_pass_in_start(bt_pass_in *in, bt_loop *loop, const bt_endpoint *endpoint, int fd)
{
    in->loop = loop;
    in->endpoint = endpoint;
    in->receive_buffer = bt_malloc(BT_PASS_MAX_BYTES);
    if (in->receive_buffer == NULL)
        return -ENOMEM;
    /* Room for all verdicts: for want of memory one connection is refused, not its whole message. */
    int err = bt_buf_reserve(&in->verdicts, sizeof(bt_pass_header) + BT_PASS_MAX_CONNS * sizeof(bt_pass_verdict));
    if (err == 0)
        err = say_hello(endpoint, fd); /* first: a handle that was made could only be closed later */
    if (err == 0)
        err = uv_poll_init(&loop->uv, &in->poll, fd);
    if (err < 0) {
        free(in->receive_buffer);
        bt_buf_free(&in->verdicts);
        return err;
    }
    in->fd = fd;
    in->is_open = true;
    in->poll.data = in;
    bt_list_init(&in->node);
    bt_list_init(&in->taken);
    return uv_poll_start(&in->poll, UV_READABLE, on_event);
}

/* ---- rebuilding one connection ---- */

typedef struct fd_queue {
    int fds[BT_PASS_MAX_FDS];
    size_t count;
    size_t next;
} fd_queue;

/* The next descriptor of the message, or -1. The caller owns it. */
static int next_fd(fd_queue *queue)
{
    return queue->next < queue->count ? queue->fds[queue->next++] : -1;
}

/* pread, never mapped: the sender could shrink the file under a mapping. */
static int read_memfd(int fd, size_t len, bt_buf *out)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return -errno;
    if (!S_ISREG(info.st_mode) || info.st_size < 0 || (size_t) info.st_size != len)
        return -EPROTO;
    int err = bt_buf_reserve(out, len);
    while (err == 0 && bt_buf_len(out) < len) {
        ssize_t n = pread(fd, bt_buf_tail(out), len - bt_buf_len(out), (off_t) bt_buf_len(out));
        if (n <= 0)
            return n < 0 ? -errno : -EPROTO;
        out->end += (size_t) n;
    }
    return err;
}

static bt_verdict verdict_of(int err)
{
    if (err == -ENOMEM)
        return BT_VERDICT_NO_MEMORY;
    if (err == -ECANCELED)
        return BT_VERDICT_APP;
    return err == -EMFILE || err == -ENFILE ? BT_VERDICT_NO_DESCRIPTOR : BT_VERDICT_MALFORMED;
}

/* Fills a fresh connection from the record. `payload` holds bt_pass_payload_len(record) bytes. */
static int rebuild(baton_conn *conn, const bt_pass_record *record, const char *payload)
{
    const char *state = payload;
    const char *app = state + record->state_len;
    const char *unread = app + record->app_len;
    const char *unsent = unread + record->unread_len;
    conn->remote = record->remote;
    conn->requests = record->requests;
    conn->bytes_read = record->bytes_read;
    conn->bytes_written = record->bytes_written;
    int err = bt_buf_append(&conn->in, unread, record->unread_len);
    if (err == 0)
        err = bt_buf_append(&conn->out, unsent, record->unsent_len);
    if (err == 0)
        err = conn->endpoint->protocol->restore(conn, state, record->state_len);
    conn->timeout.deadline_ms = record->deadline_ms; /* bt_conn_taken puts them on the wheels */
    conn->stall.deadline_ms = record->stall_ms;
    conn->taken = record->taken;
    return err < 0 ? err : bt_app_take(conn, record, app); /* last: the application sees it whole */
}

/* Takes `fd` in any case: into a connection, or closes it. */
static bt_verdict create(bt_pass_in *in, const bt_pass_record *record, const char *payload, int fd)
{
    baton_conn *conn = bt_conn_create(in->loop, in->endpoint, fd, record->id);
    if (conn == NULL) {
        close(fd);
        return BT_VERDICT_NO_MEMORY;
    }
    conn->state = BT_CONN_PASSING;
    int err = rebuild(conn, record, payload);
    if (err < 0) {
        bt_conn_passed(conn); /* our copy goes; the old process still has its own */
        return verdict_of(err);
    }
    bt_list_remove(&conn->node);
    bt_list_append(&in->taken, &conn->node);
    return BT_VERDICT_TAKEN;
}

static bt_verdict take_with_memfd(bt_pass_in *in, const bt_pass_record *record, int fd, int memfd)
{
    bt_buf payload = {0};
    int err = read_memfd(memfd, bt_pass_payload_len(record), &payload);
    bt_verdict verdict;
    if (err < 0) {
        close(fd);
        verdict = verdict_of(err);
    } else {
        verdict = create(in, record, bt_buf_len(&payload) == 0 ? "" : bt_buf_head(&payload), fd);
    }
    bt_buf_free(&payload);
    return verdict;
}

static bool is_readable(const bt_pass_in *in, const bt_pass_record *record)
{
    const bt_protocol *protocol = in->endpoint->protocol;
    return record->protocol == protocol->wire_id && record->protocol_version <= protocol->wire_version;
}

static bt_verdict take(bt_pass_in *in, const bt_pass_record *record, const char *payload, fd_queue *queue)
{
    int fd = next_fd(queue);
    int memfd = record->in_memfd ? next_fd(queue) : -1;
    bt_verdict verdict = BT_VERDICT_TAKEN;
    if (in->is_draining)
        verdict = BT_VERDICT_DRAINING;
    else if (!is_readable(in, record))
        verdict = BT_VERDICT_PROTOCOL;
    else if (!bt_app_is_readable(in->endpoint->callbacks, record))
        verdict = BT_VERDICT_APP;
    else if (fd < 0 || (record->in_memfd && memfd < 0))
        verdict = BT_VERDICT_NO_DESCRIPTOR; /* the kernel could not install them: MSG_CTRUNC */

    if (verdict != BT_VERDICT_TAKEN) {
        if (fd >= 0)
            close(fd);
    } else if (memfd >= 0) {
        verdict = take_with_memfd(in, record, fd, memfd);
    } else {
        verdict = create(in, record, payload, fd);
    }
    if (memfd >= 0)
        close(memfd);
    return verdict;
}

/* ---- one message ---- */

/* Bytes received, 0 at the end, or a negative errno. */
static ssize_t receive(bt_pass_in *in, fd_queue *queue)
{
    union {
        char bytes[CMSG_SPACE(BT_PASS_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = in->receive_buffer, .iov_len = BT_PASS_MAX_BYTES};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(in->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg != NULL; cmsg = CMSG_NXTHDR(&header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(queue->fds + queue->count, CMSG_DATA(cmsg), count * sizeof(int));
        queue->count += count;
    }
    return header.msg_flags & MSG_TRUNC ? -EPROTO : n;
}

/* Takes every connection of a message and collects the verdicts. 0, or -EPROTO: the sender cannot be trusted further.
 */
static int take_all(bt_pass_in *in, size_t len, fd_queue *queue)
{
    bt_pass_reader reader;
    bt_pass_record record;
    const char *payload;
    int err = bt_failpoint("pass-in:received");
    if (err == 0)
        err = bt_pass_open(&reader, in->receive_buffer, len, BT_PASS_CONNS);
    if (err == 0)
        err = bt_pass_begin(&in->verdicts, BT_PASS_VERDICTS, reader.version);
    if (err < 0)
        return err;
    uint32_t count = 0;
    int more;
    while ((more = bt_pass_next(&reader, &record, &payload)) > 0) {
        bt_verdict verdict = take(in, &record, payload, queue);
        if (bt_pass_add_verdict(&in->verdicts, record.id, verdict) < 0)
            return -ENOMEM;
        count++;
        if (verdict != BT_VERDICT_TAKEN)
            bt_log(BT_LOG_WARN, "pass-not-taken id=%llu verdict=%d", (unsigned long long) record.id, verdict);
    }
    bt_pass_count(&in->verdicts, count);
    return more < 0 ? more : bt_failpoint("pass-in:taken");
}

static void serve_taken(bt_pass_in *in)
{
    bt_list *node;
    while ((node = bt_list_pop(&in->taken)) != NULL) {
        baton_conn *conn = bt_container(node, baton_conn, node);
        bt_list_append(&in->loop->conns, &conn->node);
        bt_count(&conn->endpoint->counters->passed_in, 1);
        bt_failpoint("pass-in:before-poll");
        bt_conn_taken(conn);
    }
}

/* Hands the verdicts to the kernel. 0 or a negative errno. */
static int hand_over_verdicts(bt_pass_in *in)
{
    int err = bt_failpoint("pass-in:send-verdicts");
    if (err < 0)
        return err;
    ssize_t n = send(in->fd, bt_buf_head(&in->verdicts), bt_buf_len(&in->verdicts), MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : 0;
}

static bool may_succeed_later(int err)
{
    return err == -EAGAIN || err == -EINTR || err == -ENOBUFS || err == -ENOMEM;
}

/* 1: done; 0: the kernel does not take them now, and nothing is read or served until it does; negative: the channel is
 * of no use, and what was taken is still the old process's, which learns it from the channel's end. */
static int send_verdicts(bt_pass_in *in)
{
    if (bt_buf_len(&in->verdicts) == 0)
        return 1;
    int err = hand_over_verdicts(in);
    if (may_succeed_later(err)) {
        uv_poll_start(&in->poll, UV_WRITABLE, on_event);
        return 0;
    }
    bool is_sender_gone = err == -EPIPE || err == -ECONNRESET; /* then we are the only owner */
    if (err < 0 && !is_sender_gone) {
        bt_log(BT_LOG_ERROR, "pass-verdicts-lost error=%s", uv_err_name(err));
        return err;
    }
    bt_buf_clear(&in->verdicts);
    bt_list_each (node, &in->taken)
        bt_pass_log(bt_container(node, baton_conn, node)->id, "taken");
    bt_failpoint("pass-in:after-ack");
    serve_taken(in);
    return 1;
}

/* 1: go on, 0: nothing more now, negative: the channel is over. */
static int receive_message(bt_pass_in *in)
{
    fd_queue queue = {.count = 0};
    ssize_t n = receive(in, &queue);
    if (n == -ECONNRESET || n == -EINTR)
        return 1; /* the old process died with verdicts unread: its messages, queued here, still come */
    if (n == -EAGAIN)
        return 0;
    int err = n > 0 ? take_all(in, (size_t) n, &queue) : n < 0 ? (int) n : -EPIPE;
    while (queue.next < queue.count)
        close(queue.fds[queue.next++]);
    if (err < 0) {
        if (n != 0)
            bt_log(BT_LOG_ERROR, "pass-message-refused bytes=%zd error=%s", n, uv_err_name(err));
        bt_buf_clear(&in->verdicts);
        return err;
    }
    return send_verdicts(in);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    (void) events;
    bt_pass_in *in = poll->data;
    int more = 1;
    if (bt_buf_len(&in->verdicts) > 0) {
        more = send_verdicts(in);
        if (more == 0)
            return;
        if (more > 0 && status == 0)
            uv_poll_start(&in->poll, UV_READABLE, on_event);
    }
    int budget = status < 0 ? INT32_MAX : MESSAGES_PER_EVENT; /* an error stops the watcher: read to the end now */
    while (more > 0 && budget-- > 0)
        more = receive_message(in);
    if (more < 0 || status < 0)
        bt_pass_in_close(in);
}

/* ---- the end ---- */

static void handle_closed(uv_handle_t *handle)
{
    bt_pass_in *in = handle->data;
    free(in->receive_buffer);
    bt_buf_free(&in->verdicts);
    in->on_end(in);
}

/* A connection whose verdict never reached the kernel is still the sender's: our copy goes, unread. */
static void abandon_taken(bt_pass_in *in)
{
    bt_list *node;
    while ((node = bt_list_pop(&in->taken)) != NULL)
        bt_conn_passed(bt_container(node, baton_conn, node));
}

void bt_pass_in_close(bt_pass_in *in)
{
    if (!in->is_open)
        return;
    in->is_open = false;
    in->on_closing(in);
    abandon_taken(in);
    uv_close((uv_handle_t *) &in->poll, handle_closed);
    close(in->fd);
}

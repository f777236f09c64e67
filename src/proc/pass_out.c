/* proc/pass_out.c: sends held connections to the successor and waits for its verdicts.
 * Must not know why the process drains, nor read a connection it has sent. */
#include <assert.h>
#include <base/failpoint.h>
#include <base/log.h>
#include <errno.h>
#include <proc/pass_out.h>
#include <proc/pass_state.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY_MS     5
#define VERDICTS_MAX (sizeof(bt_pass_header) + BT_PASS_MAX_CONNS * sizeof(bt_pass_verdict))

static void on_event(uv_poll_t *poll, int status, int events);
static void successor_died(bt_pass_out *out);

int bt_pass_out_start(bt_pass_out *out, bt_loop *loop, int fd)
{
    out->loop = loop;
    /* An idle connection then leaves without an allocation. */
    int err = bt_buf_reserve(&out->message, BT_PASS_MAX_BYTES);
    if (err == 0)
        err = uv_poll_init(&loop->uv, &out->poll, fd);
    if (err < 0) {
        bt_buf_free(&out->message);
        return err;
    }
    uv_timer_init(&loop->uv, &out->retry);
    out->poll.data = out;
    out->retry.data = out;
    out->fd = fd;
    out->is_open = true;
    bt_list_init(&out->node);
    bt_list_init(&out->waiting);
    bt_list_init(&out->large);
    bt_list_init(&out->sent);
    return uv_poll_start(&out->poll, UV_READABLE, on_event);
}

void bt_pass_out_add(bt_pass_out *out, baton_conn *conn)
{
    assert(out->version != 0);
    bt_failpoint("pass-out:before-hold");
    bt_conn_hold(conn);
    bt_failpoint("pass-out:after-hold");
    bt_list_remove(&conn->node);
    size_t size = bt_buf_len(&conn->in) + bt_buf_len(&conn->out);
    bt_list_append(size < BT_PASS_MAX_BYTES / 2 ? &out->waiting : &out->large, &conn->node);
}

bool bt_pass_out_is_settled(const bt_pass_out *out)
{
    return bt_list_empty(&out->waiting) && bt_list_empty(&out->large) && bt_list_empty(&out->sent);
}

/* ---- building a message ---- */

typedef struct pass_batch {
    int fds[BT_PASS_MAX_FDS];
    size_t fd_count;
    bool is_memfd[BT_PASS_MAX_FDS];
    uint32_t conn_count;
    bt_list stay; /* could not be described: served on here */
} pass_batch;

static int memfd_with(const bt_buf *payload)
{
    int fd = memfd_create("baton-pass", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    const char *at = bt_buf_head(payload);
    size_t left = bt_buf_len(payload);
    while (left > 0) {
        ssize_t n = write(fd, at, left);
        if (n < 0) {
            int err = -errno;
            close(fd);
            return err;
        }
        at += n;
        left -= (size_t) n;
    }
    return fd;
}

/* Fills record and payload (state, app, unread, unsent, in this order). */
static int describe(const bt_pass_out *out, baton_conn *conn, bt_pass_record *record, bt_buf *payload)
{
    const bt_protocol *protocol = conn->endpoint->protocol;
    if (bt_buf_len(&conn->in) + bt_buf_len(&conn->out) > BT_PASS_MAX_PAYLOAD - BT_PASS_MAX_APP - BT_PASS_MAX_BYTES)
        return -EMSGSIZE; /* a record like that would make the successor refuse the whole channel */
    bt_buf unread = {0};
    int err = protocol->save(conn, payload, &unread);
    *record = (bt_pass_record){
        .id = conn->id,
        .protocol = protocol->wire_id,
        .protocol_version = protocol->wire_version,
        .requests = conn->requests,
        .bytes_read = conn->bytes_read,
        .bytes_written = conn->bytes_written,
        .deadline_ms = conn->timeout.deadline_ms,
        .taken = conn->taken,
        .stall_ms = conn->stall.deadline_ms,
        .remote = conn->remote,
        .state_len = bt_buf_len(payload),
        .unread_len = bt_buf_len(&unread),
        .unsent_len = bt_buf_len(&conn->out),
    };
    if (err == 0)
        err = bt_app_save(conn, &out->hello, record, payload);
    if (err == 0)
        err = bt_buf_append(payload, bt_buf_head(&unread), bt_buf_len(&unread));
    if (err == 0)
        err = bt_buf_append(payload, bt_buf_head(&conn->out), bt_buf_len(&conn->out));
    bt_buf_free(&unread);
    return err;
}

static bool is_large(const bt_buf *payload)
{
    return bt_buf_len(payload) >= BT_PASS_MAX_BYTES / 2;
}

/* Appends one connection. 1: it went in; 0: the message is full; negative errno: it cannot be described now. */
static int add_conn(bt_pass_out *out, pass_batch *batch, baton_conn *conn)
{
    bt_pass_record record;
    bt_buf payload = {0};
    int memfd = -1;
    int err = describe(out, conn, &record, &payload);
    if (err < 0)
        goto done;
    if (is_large(&payload)) {
        memfd = memfd_with(&payload);
        err = memfd < 0 ? memfd : 0;
        record.in_memfd = 1;
        bt_buf_clear(&payload);
    }
    size_t message_len = bt_buf_len(&out->message);
    size_t size = sizeof record + bt_buf_len(&payload);
    bool is_full = bt_buf_len(&out->message) + size > BT_PASS_MAX_BYTES;
    if (err == 0 && !is_full)
        err = bt_buf_append(&out->message, &record, sizeof record);
    if (err == 0 && !is_full)
        err = bt_buf_append(&out->message, bt_buf_head(&payload), bt_buf_len(&payload));
    if (err < 0 || is_full) {
        out->message.end = out->message.start + message_len; /* a record without its payload would spoil the others */
        if (memfd >= 0)
            close(memfd);
        goto done;
    }
    batch->fds[batch->fd_count++] = conn->fd;
    if (memfd >= 0) {
        batch->is_memfd[batch->fd_count] = true;
        batch->fds[batch->fd_count++] = memfd;
    }
    batch->conn_count++;
    err = 1;
done:
    bt_buf_free(&payload);
    return err;
}

static void close_memfds(const pass_batch *batch)
{
    for (size_t i = 0; i < batch->fd_count; i++) {
        if (batch->is_memfd[i])
            close(batch->fds[i]);
    }
}

/* Builds a message from the front of `queue`; the connections stay in it, but for those that cannot be described. A
 * large one ends its message, so that few memfds wait in the channel at a time. */
static int build(bt_pass_out *out, pass_batch *batch, bt_list *queue)
{
    int err = bt_pass_begin(&out->message, BT_PASS_CONNS, out->version);
    if (err < 0)
        return err;
    size_t room = BT_PASS_WINDOW - out->unanswered;
    if (room > BT_PASS_MAX_CONNS)
        room = BT_PASS_MAX_CONNS;
    bt_list_each (node, queue) {
        if (batch->conn_count >= room || batch->fd_count > batch->conn_count)
            break;
        baton_conn *conn = bt_container(node, baton_conn, node);
        int added = add_conn(out, batch, conn);
        if (added == 0)
            break;
        if (added < 0) {
            conn->app_stays = added == -ECANCELED;
            bt_log(conn->app_stays ? BT_LOG_DEBUG : BT_LOG_WARN, "pass-refused id=%llu reason=%s",
                   (unsigned long long) conn->id, conn->app_stays ? "on_pass" : uv_err_name(added));
            bt_list_remove(node);
            bt_list_append(&batch->stay, node);
        }
    }
    bt_pass_count(&out->message, batch->conn_count);
    return 0;
}

/* ---- sending ---- */

static int send_batch(bt_pass_out *out, const pass_batch *batch)
{
    union {
        char bytes[CMSG_SPACE(BT_PASS_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    size_t size = batch->fd_count * sizeof(int);
    struct iovec part = {.iov_base = bt_buf_head(&out->message), .iov_len = bt_buf_len(&out->message)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE(batch->fd_count * sizeof(int))};
    memset(&control, 0, sizeof control);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(cmsg), batch->fds, size);
    return sendmsg(out->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void mark_sent(bt_pass_out *out, bt_list *queue, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        bt_list *node = bt_list_pop(queue);
        bt_list_append(&out->sent, node);
        bt_pass_log(bt_container(node, baton_conn, node)->id, "sent");
    }
    out->unanswered += count;
}

static void serve_on(bt_pass_out *out, baton_conn *conn, bt_verdict verdict)
{
    bt_list_remove(&conn->node);
    bt_list_append(&out->loop->conns, &conn->node);
    bt_count(&conn->endpoint->counters->pass_refused, 1);
    bt_pass_log(conn->id, "rearmed");
    bt_conn_rearm(conn);
    if (out->on_refused != NULL)
        out->on_refused(out, conn, verdict);
}

static void retry(uv_timer_t *timer)
{
    bt_pass_out_pump(timer->data);
}

/* The kernel will never take such a message (a socket buffer that is made too small, EMSGSIZE): connections must not be
 * held for ever. From a turn of its own, because lists of this channel are being walked now. */
static void give_up(uv_timer_t *timer)
{
    bt_pass_out_close(timer->data);
}

static void give_up_sending(bt_pass_out *out, int err)
{
    bt_log(BT_LOG_ERROR, "pass-not-sent error=%s", uv_err_name(err));
    uv_timer_start(&out->retry, give_up, 0, 0);
}

/* False when sending has to wait or is over. */
static bool send_built(bt_pass_out *out, const pass_batch *batch, bt_list *queue)
{
    if (batch->conn_count == 0)
        return true;
    int err = send_batch(out, batch);
    if (err == 0) {
        mark_sent(out, queue, batch->conn_count);
        bt_failpoint("pass-out:after-send");
        return true;
    }
    if (err == -EAGAIN)
        uv_poll_start(&out->poll, UV_READABLE | UV_WRITABLE, on_event);
    else if (err == -ETOOMANYREFS || err == -ENOBUFS || err == -ENOMEM || err == -EINTR)
        uv_timer_start(&out->retry, retry, RETRY_MS, 0);
    else if (err != -EPIPE && err != -ECONNRESET) /* then the channel's end says so, after the last verdicts */
        give_up_sending(out, err);
    return false;
}

/* One message. False when sending has to wait or is over. */
static bool send_some(bt_pass_out *out)
{
    bt_list *queue = bt_list_empty(&out->waiting) ? &out->large : &out->waiting;
    if (bt_list_empty(queue) || out->unanswered >= BT_PASS_WINDOW)
        return false;
    pass_batch batch = {0};
    bt_list_init(&batch.stay);
    if (build(out, &batch, queue) < 0) {
        uv_timer_start(&out->retry, retry, RETRY_MS, 0); /* no memory for any message */
        return false;
    }
    bool goes_on = send_built(out, &batch, queue);
    close_memfds(&batch);
    while (!bt_list_empty(&batch.stay)) {
        baton_conn *conn = bt_container(batch.stay.next, baton_conn, node);
        serve_on(out, conn, conn->app_stays ? BT_VERDICT_APP : BT_VERDICT_NO_MEMORY);
    }
    return goes_on;
}

void bt_pass_out_pump(bt_pass_out *out)
{
    while (out->is_open && out->version != 0 && send_some(out))
        ;
    if (out->is_open && out->version != 0 && bt_pass_out_is_settled(out))
        out->on_settled(out);
}

/* ---- what the successor says ---- */

static int hear_hello(bt_pass_out *out, const char *bytes, size_t len)
{
    int err = bt_pass_read_hello(bytes, len, &out->hello);
    if (err < 0)
        return err;
    out->has_hello = true;
    out->version = bt_pass_common_version(&out->hello);
    out->on_hello(out);
    return out->is_open;
}

static baton_conn *find_sent(bt_pass_out *out, uint64_t id)
{
    /* Verdicts come in the order of sending: nearly always the first. */
    bt_list_each (node, &out->sent) {
        baton_conn *conn = bt_container(node, baton_conn, node);
        if (conn->id == id)
            return conn;
    }
    return NULL;
}

/* It is another process's: our copy of the descriptor goes. */
static void let_pass(baton_conn *conn)
{
    bt_pass_log(conn->id, "passed");
    bt_failpoint("pass-out:before-close");
    bt_conn_passed(conn);
}

static void settle(bt_pass_out *out, const bt_pass_verdict *verdict)
{
    baton_conn *conn = find_sent(out, verdict->id);
    if (conn == NULL) {
        bt_log(BT_LOG_ERROR, "pass-verdict-unknown id=%llu", (unsigned long long) verdict->id);
        return;
    }
    out->unanswered--;
    if (verdict->verdict == BT_VERDICT_TAKEN) {
        bt_failpoint("pass-out:after-ack");
        bt_list_remove(&conn->node);
        bt_count(&conn->endpoint->counters->passed_out, 1);
        let_pass(conn);
    } else {
        conn->app_stays = verdict->verdict == BT_VERDICT_APP;
        bt_log(BT_LOG_WARN, "pass-refused id=%llu verdict=%u", (unsigned long long) conn->id, verdict->verdict);
        serve_on(out, conn, (bt_verdict) verdict->verdict);
    }
}

/* 1: go on reading, 0: nothing more now, negative: the channel is over. */
static int read_message(bt_pass_out *out)
{
    char bytes[VERDICTS_MAX];
    ssize_t n = recv(out->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == ECONNRESET || errno == EINTR))
        return 1; /* the successor died with our messages unread: its verdicts, queued here, still come */
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -EPIPE; /* the successor is dead, and this was its last word */
    if (!out->has_hello)
        return hear_hello(out, bytes, (size_t) n);
    bt_failpoint("pass-out:before-ack");
    bt_pass_reader reader;
    bt_pass_verdict verdict;
    int more = bt_pass_open(&reader, bytes, (size_t) n, BT_PASS_VERDICTS);
    if (more < 0)
        return more;
    while ((more = bt_pass_next_verdict(&reader, &verdict)) > 0)
        settle(out, &verdict);
    return more < 0 ? more : 1;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    bt_pass_out *out = poll->data;
    if (status == 0 && (events & UV_WRITABLE))
        uv_poll_start(&out->poll, UV_READABLE, on_event);
    int more = 1;
    while (more > 0)
        more = read_message(out);
    if (more == -EPIPE)
        successor_died(out);
    else if (more < 0 || status < 0)
        bt_pass_out_close(out); /* it speaks nonsense, and may own what it was sent */
    else
        bt_pass_out_pump(out);
}

/* ---- the end ---- */

static void serve_all_on(bt_pass_out *out, bt_list *list)
{
    bt_list batch;
    bt_list_init(&batch);
    bt_list_move_all(&batch, list);
    while (!bt_list_empty(&batch))
        serve_on(out, bt_container(batch.next, baton_conn, node), BT_VERDICT_DRAINING);
}

void bt_pass_out_hand_on(bt_pass_out *out, bt_pass_out *next)
{
    out->is_ending = true;
    if (next == NULL) {
        serve_all_on(out, &out->waiting);
        serve_all_on(out, &out->large);
        return;
    }
    bt_list_move_all(&next->waiting, &out->waiting);
    bt_list_move_all(&next->large, &out->large);
}

static void handle_closed(uv_handle_t *handle)
{
    bt_pass_out *out = handle->data;
    if (--out->open_handles > 0)
        return;
    bt_buf_free(&out->message);
    out->on_end(out);
}

static void close_channel(bt_pass_out *out)
{
    out->is_open = false;
    out->on_closing(out);
    out->open_handles = 2;
    uv_close((uv_handle_t *) &out->retry, handle_closed);
    uv_close((uv_handle_t *) &out->poll, handle_closed);
    close(out->fd);
}

/* Its verdicts are read, and a dead successor reads nothing: all that is left is ours alone. */
static void successor_died(bt_pass_out *out)
{
    close_channel(out);
    serve_all_on(out, &out->sent);
    serve_all_on(out, &out->waiting);
    serve_all_on(out, &out->large);
}

void bt_pass_out_close(bt_pass_out *out)
{
    int more = out->is_open && out->has_hello; /* before that nothing was sent, and a HELLO would come too late */
    while (more > 0)
        more = read_message(out); /* what is refused, or was never taken by a dead successor, is ours */
    if (!out->is_open)
        return;
    if (more == -EPIPE) {
        successor_died(out);
        return;
    }
    close_channel(out);
    bt_list *node;
    while ((node = bt_list_pop(&out->sent)) != NULL)
        let_pass(bt_container(node, baton_conn, node));
    serve_all_on(out, &out->waiting);
    serve_all_on(out, &out->large);
}

/* proc/channel.c: messages between master and process over SOCK_SEQPACKET.
 * Must not know what they mean. */
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <proc/channel.h>
#include <proc/json_text.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct queued_message {
    bt_list node;
    bt_message message;
    int fd;
} queued_message;

#define RETRY_MS 5

static void on_event(uv_poll_t *poll, int status, int events);
static void send_queued(bt_channel *channel);

int bt_channel_pair(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
}

static void give_reserve(bt_channel *channel)
{
    if (channel->reserve_fd >= 0)
        close(channel->reserve_fd);
    channel->reserve_fd = -1;
}

/* Fails while the process is full; the next message tries again. */
static void take_reserve(bt_channel *channel)
{
    if (channel->keeps_reserve && channel->reserve_fd < 0)
        channel->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int bt_channel_start(bt_channel *channel, uv_loop_t *loop, int fd)
{
    int err = uv_poll_init(loop, &channel->poll, fd);
    if (err < 0)
        return err;
    channel->fd = fd;
    channel->is_open = true;
    channel->poll.data = channel;
    bt_list_init(&channel->queue);
    uv_timer_init(loop, &channel->retry);
    channel->retry.data = channel;
    channel->reserve_fd = -1;
    take_reserve(channel);
    return uv_poll_start(&channel->poll, UV_READABLE, on_event);
}

void bt_channel_forget_queue(bt_channel *channel)
{
    bt_list *node;
    while ((node = bt_list_pop(&channel->queue)) != NULL) {
        queued_message *queued = bt_container(node, queued_message, node);
        if (queued->fd >= 0)
            close(queued->fd);
        free(queued);
    }
}

/* libuv closes the handle that was closed last first: the struct may go when the one closed first, retry, is done, too.
 */
static void handle_closed(uv_handle_t *handle)
{
    bt_channel *channel = handle->data;
    if (--channel->open_handles == 0 && channel->closed != NULL)
        channel->closed(channel);
}

void bt_channel_close(bt_channel *channel, void (*closed)(bt_channel *channel))
{
    if (!channel->is_open)
        return;
    channel->is_open = false;
    bt_channel_forget_queue(channel);
    channel->closed = closed;
    channel->open_handles = 2;
    uv_close((uv_handle_t *) &channel->retry, handle_closed);
    uv_close((uv_handle_t *) &channel->poll, handle_closed);
    close(channel->fd);
    channel->fd = -1;
    give_reserve(channel);
}

/* ---- sending ---- */

static int send_now(int socket, const bt_message *message, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = (void *) (uintptr_t) message,
                         .iov_len = offsetof(bt_message, text) + message->text_len};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof control.bytes;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static bool may_succeed_later(int err)
{
    return err == -EAGAIN || err == -ETOOMANYREFS || err == -ENOBUFS || err == -ENOMEM || err == -EINTR;
}

static void retry(uv_timer_t *timer)
{
    send_queued(timer->data);
}

static void wait_to_send(bt_channel *channel, int why)
{
    if (why == -EAGAIN)
        uv_poll_start(&channel->poll, UV_READABLE | UV_WRITABLE, on_event);
    else
        uv_timer_start(&channel->retry, retry, RETRY_MS, 0);
}

/* The other side is stopped or busy: it hears the message when it reads again. */
static int enqueue(bt_channel *channel, const bt_message *message, int fd, int why)
{
    queued_message *queued = bt_malloc(sizeof *queued);
    if (queued == NULL)
        return -ENOMEM;
    queued->message = *message;
    queued->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0 && queued->fd < 0) {
        int err = -errno;
        free(queued);
        return err;
    }
    bt_list_append(&channel->queue, &queued->node);
    wait_to_send(channel, why);
    return 0;
}

static void fill(bt_message *message, bt_message_type type, uint64_t value, const char *text, bool has_fd)
{
    *message = (bt_message){.version = BT_CHANNEL_VERSION, .type = (uint16_t) type, .has_fd = has_fd, .value = value};
    size_t len = text == NULL ? 0 : strnlen(text, BT_CHANNEL_TEXT - 1);
    message->text_len = (uint16_t) len;
    if (len > 0)
        memcpy(message->text, text, len);
}

int bt_channel_send_blocking(int fd, bt_message_type type, uint64_t value, const char *text, int sent_fd)
{
    bt_message message;
    fill(&message, type, value, text, sent_fd >= 0);
    int err;
    while ((err = send_now(fd, &message, sent_fd)) == -EAGAIN || err == -EINTR) {
        struct pollfd poller = {.fd = fd, .events = POLLOUT};
        poll(&poller, 1, -1);
    }
    return err;
}

int bt_channel_send(bt_channel *channel, bt_message_type type, uint64_t value, const char *text, int fd)
{
    if (!channel->is_open)
        return -EPIPE;
    bt_message message;
    fill(&message, type, value, text, fd >= 0);
    if (!bt_list_empty(&channel->queue))
        return enqueue(channel, &message, fd, -EAGAIN);
    int err = send_now(channel->fd, &message, fd);
    return may_succeed_later(err) ? enqueue(channel, &message, fd, err) : err;
}

static void send_queued(bt_channel *channel)
{
    while (!bt_list_empty(&channel->queue)) {
        queued_message *queued = bt_container(channel->queue.next, queued_message, node);
        int err = send_now(channel->fd, &queued->message, queued->fd);
        if (may_succeed_later(err)) {
            uv_poll_start(&channel->poll, UV_READABLE, on_event);
            wait_to_send(channel, err);
            return;
        }
        bt_list_remove(&queued->node);
        if (queued->fd >= 0)
            close(queued->fd);
        free(queued);
    }
    uv_poll_start(&channel->poll, UV_READABLE, on_event);
}

json_t *bt_channel_queue_json(const bt_channel *channel)
{
    json_t *array = json_array();
    bt_list_each (node, &channel->queue) {
        const queued_message *queued = bt_container(node, queued_message, node);
        const bt_message *message = &queued->message;
        array = bt_json_append(array, json_pack("{s:i, s:I, s:o, s:i}", "type", (int) message->type, "value",
                                                (json_int_t) message->value, "text", bt_json_text(message->text), "fd",
                                                queued->fd));
    }
    return array;
}

/* ---- receiving ---- */

/* Bytes of one message, 0 at the end, or a negative errno. */
static ssize_t receive(bt_channel *channel, bt_message *message, int *fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = message, .iov_len = sizeof *message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *fd = -1;
    /* One descriptor is always free for what the master sends: a full process must hear where its clients can go. */
    give_reserve(channel);
    ssize_t n = recvmsg(channel->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    int err = errno;
    struct cmsghdr *cmsg = n < 0 ? NULL : CMSG_FIRSTHDR(&header);
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(cmsg), sizeof(int));
    take_reserve(channel);
    return n < 0 ? -err : n;
}

static bool is_valid(const bt_message *message, size_t n)
{
    return n >= offsetof(bt_message, text) && message->version == BT_CHANNEL_VERSION &&
           message->text_len < BT_CHANNEL_TEXT && n == offsetof(bt_message, text) + message->text_len;
}

/* Returns false when nothing more can be read now. */
static bool receive_one(bt_channel *channel)
{
    bt_message message;
    int fd;
    ssize_t n = receive(channel, &message, &fd);
    if (n == -ECONNRESET || n == -EINTR)
        return true; /* the other side died with our messages unread: its own, queued here, still come */
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        channel->on_end(channel);
        return false;
    }
    if (!is_valid(&message, (size_t) n)) {
        bt_log(BT_LOG_ERROR, "channel-message-refused bytes=%zd", n);
        if (fd >= 0)
            close(fd);
        return true;
    }
    message.text[message.text_len] = '\0';
    channel->on_message(channel, &message, fd);
    return channel->is_open;
}

void bt_channel_read_rest(bt_channel *channel)
{
    while (channel->is_open && receive_one(channel))
        ;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    bt_channel *channel = poll->data;
    if (status == 0 && (events & UV_WRITABLE))
        send_queued(channel);
    if (status < 0 || (events & UV_READABLE)) {
        while (receive_one(channel))
            ;
    }
    /* An error on the socket makes libuv stop the watcher; what is left is the end-of-file. */
    if (status < 0 && channel->is_open)
        channel->on_end(channel);
}

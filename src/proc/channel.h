/* proc/channel.h: the SOCK_SEQPACKET channel between the master and one process: small versioned messages, at most one
 * descriptor each. Its end-of-file tells that the other side is gone.
 * Knows messages, not what they lead to. */
#ifndef BT_PROC_CHANNEL_H
#define BT_PROC_CHANNEL_H

#include <base/list.h>
#include <baton/types.h>
#include <uv.h>

#define BT_CHANNEL_VERSION 1
#define BT_CHANNEL_TEXT    1024

#define BT_NO_LIMIT UINT64_MAX /* a time to the end that never comes */

typedef enum bt_message_type {
    /* process -> master */
    BT_MESSAGE_READY = 1,   /* on_worker_start returned 0: accepting from now on */
    BT_MESSAGE_FAILED,      /* cannot serve; text says why; the process ends */
    BT_MESSAGE_HANDED_OVER, /* draining: everything passable has been passed */
    BT_MESSAGE_ASK_PASS,    /* draining, and without a channel to the process that serves now */
    BT_MESSAGE_ASK_RELOAD,  /* baton_reload_all() */
    BT_MESSAGE_ASK_STOP,    /* baton_stop_all(); value: graceful */
    BT_MESSAGE_MODULE,      /* from the helper: value: worker, text: "SHA256 BUILD-ID PATH" of its pinned module */
    BT_MESSAGE_CONFIG,      /* from the helper: the descriptor is a memfd with the text of the configuration */
    BT_MESSAGE_ADDRESS,     /* from the helper: value: worker, text: the number of its host's name */
    BT_MESSAGE_ASK_RECYCLE, /* a limit of the process is reached (max_requests, max_memory): text says which */

    /* master -> process */
    BT_MESSAGE_DRAIN = 64, /* stop accepting; pass what can be passed through the descriptor; value: ms until the end,
                              BT_NO_LIMIT: whenever all is finished */
    BT_MESSAGE_DRAIN_AND_ASK, /* the same, but its channel could not be made: ask for one */
    BT_MESSAGE_LIMIT,         /* the drain that goes on ends in value ms */
    BT_MESSAGE_PASS_OUT,      /* draining goes on towards this successor */
    BT_MESSAGE_PASS_IN,       /* take connections from this descriptor */
    BT_MESSAGE_STOP,          /* finish what is being handled; value: ms until the end */
    BT_MESSAGE_RELOAD_NOTE,   /* a reload that does not replace this process */
    BT_MESSAGE_LOG,           /* write the log to this descriptor */
    BT_MESSAGE_LISTEN_LAST,   /* accept what waits in the queue of this listening socket, then close it */
} bt_message_type;

typedef struct bt_message {
    uint16_t version;
    uint16_t type;   /* bt_message_type */
    uint16_t has_fd; /* a descriptor belongs to it: if none arrived, the receiver was out of them */
    uint16_t text_len;
    uint64_t value;
    char text[BT_CHANNEL_TEXT]; /* NUL-terminated after receiving; only text_len bytes travel */
} bt_message;

typedef struct bt_channel {
    uv_poll_t poll;
    uv_timer_t retry; /* too many descriptors are in flight: no readiness event tells when there are fewer */
    int fd;
    int reserve_fd; /* given up to receive a descriptor when the process has used all others; -1 */
    bool is_open;
    bool keeps_reserve; /* set before the start: this side receives descriptors */
    bt_list queue;      /* messages the socket did not take (a stopped process) */
    void (*on_message)(struct bt_channel *channel, const bt_message *message, int fd); /* fd: -1, or taken */
    void (*on_end)(struct bt_channel *channel); /* the other side is gone; close the channel */
    void (*closed)(struct bt_channel *channel);
    unsigned open_handles;
    void *owner;
} bt_channel;

/* A connected pair, non-blocking and close-on-exec. 0 or a negative errno. */
BATON_NODISCARD int bt_channel_pair(int pair[2]);

/* Takes `fd`; set on_message, on_end and owner before. 0 or a negative errno (fd is then the caller's). */
BATON_NODISCARD int bt_channel_start(bt_channel *channel, uv_loop_t *loop, int fd);

/* Closes and frees what is queued. `closed` (may be NULL) is called when the struct may be freed. */
void bt_channel_close(bt_channel *channel, void (*closed)(bt_channel *channel));

/* In a fresh child: closes the descriptors that wait in the master's queue, or their copies would hide an end-of-file.
 */
void bt_channel_forget_queue(bt_channel *channel);

/* Reads what a dead process has left in the channel. */
void bt_channel_read_rest(bt_channel *channel);

/* What waits to be sent, for another image of the master: a new array of {"type", "value", "text", "fd"}. */
struct json_t *bt_channel_queue_json(const bt_channel *channel);

/* Sends or queues; never blocks. `fd` is -1 or borrowed (a queued message keeps a copy). `text` may be NULL.
 * 0, or a negative errno when the channel is closed or broken. */
int bt_channel_send(bt_channel *channel, bt_message_type type, uint64_t value, const char *text, int fd);

/* The same on a bare descriptor, waiting until the other side reads: for a helper that has no loop. */
int bt_channel_send_blocking(int fd, bt_message_type type, uint64_t value, const char *text, int sent_fd);

#endif

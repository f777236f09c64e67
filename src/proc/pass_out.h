/* proc/pass_out.h: the old process's side of a pass: hands its connections to one successor. The successor speaks
 * first: before its HELLO nothing is held or sent, because it may never come, or read nothing that we write.
 *
 *   waiting --sendmsg--> sent --ACK--> gone          (bt_conn_passed: our copy of the descriptor is closed)
 *                         |--NACK--> served on here  (bt_conn_rearm)
 *   end of the channel (the successor is dead): queued verdicts are read first, then what is left is served on here.
 *
 * A connection is held (not polled, not read) from the moment it is waiting, so only one process reads it. */
#ifndef BT_PROC_PASS_OUT_H
#define BT_PROC_PASS_OUT_H

#include <net/conn.h>
#include <proc/pass_wire.h>

typedef struct bt_pass_out {
    bt_list node; /* for its owner */
    bt_loop *loop;
    uv_poll_t poll;
    uv_timer_t retry; /* ETOOMANYREFS is not signalled by writability */
    int fd;
    unsigned open_handles;
    bool is_open;
    bool is_ending; /* nothing is added any more; closes when all is answered */
    bool has_hello;
    bt_pass_hello hello; /* what the successor reads */
    uint16_t version;    /* of the messages: the newest that both know. 0: before HELLO, or there is none */
    bt_list waiting;
    bt_list large; /* state too large for a message: sent last */
    bt_list sent;
    size_t unanswered;
    bt_buf message;
    void (*on_hello)(struct bt_pass_out *out);   /* the successor has spoken; the channel may be closed here */
    void (*on_settled)(struct bt_pass_out *out); /* nothing is waiting or unanswered */
    void (*on_refused)(struct bt_pass_out *out, baton_conn *conn, bt_verdict verdict); /* served here again */
    void (*on_closing)(struct bt_pass_out *out);                                       /* the channel is over */
    void (*on_end)(struct bt_pass_out *out); /* its handles are closed: free it */
    void *owner;
} bt_pass_out;

/* Takes `fd`, one end of a channel pair. Callbacks and owner are set before. 0 or a negative errno (fd is the
 * caller's). */
BATON_NODISCARD int bt_pass_out_start(bt_pass_out *out, bt_loop *loop, int fd);

/* Holds the connection (it must be passable) and queues it. Only to a successor with a version in common. */
void bt_pass_out_add(bt_pass_out *out, baton_conn *conn);

/* Sends what is queued; call it after adding. */
void bt_pass_out_pump(bt_pass_out *out);

/* Another successor takes over: what is waiting moves to `next` (NULL: is served on here), what was sent is still
 * answered here. */
void bt_pass_out_hand_on(bt_pass_out *out, bt_pass_out *next);

bool bt_pass_out_is_settled(const bt_pass_out *out);

/* Closes while the successor lives. What was not sent is served on here; what was sent and not answered is the
 * successor's from now on: it may be reading it already, so there is no retake. on_closing at once, on_end later. */
void bt_pass_out_close(bt_pass_out *out);

#endif

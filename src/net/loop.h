/* net/loop.h: what all connections of one process share: the libuv loop, one receive buffer, the output being
 * corked, the timeout wheel and the list of connections. Knows no protocol and no master. */
#ifndef BT_NET_LOOP_H
#define BT_NET_LOOP_H

#include <base/buf.h>
#include <base/counters.h>
#include <base/list.h>
#include <net/wheel.h>
#include <uv.h>

#define BT_RECEIVE_BUFFER (64 * 1024)
#define BT_SPARE_CONNS    1024

/* What becomes of connections from now on: NONE <-> PASS <-> STRAND, and from each of them CLOSE, for good. */
typedef enum bt_departure {
    BT_DEPARTURE_NONE,   /* they are served; also while a process that leaves waits for a successor */
    BT_DEPARTURE_PASS,   /* a successor takes them, each as soon as nothing of it is being handled */
    BT_DEPARTURE_STRAND, /* the successor cannot read what we write: each is answered once more, then closed */
    BT_DEPARTURE_CLOSE,  /* nobody takes them: what is being handled is answered, then they are closed */
} bt_departure;

typedef struct bt_loop {
    uv_loop_t uv;
    char *receive_buffer;      /* read into, parsed in place; an idle connection owns no buffer */
    bt_buf output;             /* answers of the corked connection, sent with one send(2) */
    struct baton_conn *corked; /* the connection whose event is being handled, or NULL */
    bt_list dirty;             /* connections with bytes to flush or input to resume at the loop's end */
    uv_prepare_t flush;
    uv_idle_t again; /* active while the dirty list is not empty: do not wait */
    uv_timer_t tick; /* drives the wheel; runs only while the wheel holds entries */
    bt_wheel wheel;  /* protocols' deadlines */
    bt_wheel stalls; /* peers that do not read */

    bt_list conns;
    size_t conn_count;
    bt_list spare_conns; /* closed connections kept for reuse */
    size_t spare_count;
    bt_list timers;     /* the application's timers */
    uint64_t id_prefix; /* process number << 40 */
    uint64_t next_id;

    bt_departure departure;
    bool app_travels; /* under PASS: what the application keeps for a connection can be saved here and read there */
    void (*on_passable)(struct baton_conn *conn, void *arg); /* under PASS: nothing is being handled on it now */
    void (*on_conn_gone)(void *arg);                         /* a connection has ended */
    void *hook_arg;

    char date[32];    /* cached Date value */
    uint64_t date_ms; /* loop time of the last look at the wall clock */
    int64_t date_seconds;

    void *http_spare; /* proto/http's spare exchange */
    void (*http_spare_free)(void *spare);
} bt_loop;

/* 0 or a negative errno; on failure nothing needs to be closed. */
BATON_NODISCARD int bt_loop_init(bt_loop *loop, uint64_t process_number);

/* Closes every handle of the loop and frees what it owns. Connections must be gone. */
void bt_loop_close(bt_loop *loop);

/* Milliseconds on the bt_clock_ms scale, cached by the loop iteration. */
static inline uint64_t bt_loop_now(const bt_loop *loop)
{
    return uv_now(&loop->uv);
}

/* Calls `fn` for each connection in the list; it may end this and any other connection. */
void bt_loop_each_conn(bt_loop *loop, void (*fn)(struct baton_conn *conn, void *arg), void *arg);

/* Sets a deadline on one of the loop's wheels and keeps it turning; 0 clears it. */
void bt_loop_deadline(bt_loop *loop, bt_wheel *wheel, bt_wheel_entry *entry, uint64_t deadline_ms);

#endif

/* tests/unit/pass_pair.h: an old process, its successor and one more, all in one: three loops, joined by real pass
 * channels, with real connections in them. Knows how to turn the loops; not what a test expects. */
#ifndef BT_TEST_PASS_PAIR_H
#define BT_TEST_PASS_PAIR_H

#include <base/clock.h>
#include <errno.h>
#include <net/conn.h>
#include <proc/channel.h>
#include <proc/pass_in.h>
#include <proc/pass_out.h>
#include <proc/pass_state.h>
#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define LARGE       (4u << 20) /* bytes in the answer to /large */

/* What one process has. It answers a request with "NAME:BODY:TRAILER" (trailer field "X-End"). */
typedef struct pass_side {
    bt_loop loop;
    bt_counters counters;
    bt_counter crew_connections;
    baton_callbacks callbacks;
    bt_endpoint endpoint;
    const char *name;
    int answered;
    int connects; /* callbacks, as the application hears them */
    int closes;
    bool is_dead; /* its loop is never turned again */
} pass_side;

/* A channel between two sides. */
typedef struct pass_link {
    bt_pass_out out;
    bt_pass_in in;
    int refused; /* on_refused calls, and what the last one said */
    bt_verdict verdict;
    int ended; /* ends whose handles are closed; at 2 the link may be opened anew */
} pass_link;

typedef struct pass_pair {
    pass_side old;
    pass_side successor;
    pass_side later;
    pass_link link;  /* old to successor */
    pass_link next;  /* for tests that need a second one: pass_link_open */
    bt_loop *extra;  /* one more loop to turn, or NULL */
    int descriptors; /* open when the test began */
} pass_pair;

/* One connection, opened at the old side. */
typedef struct pass_client {
    int fd;
    int served_fd;    /* the old side's number of it */
    baton_conn *conn; /* the old side's, with a reference */
    uint64_t id;
    bt_buf received;
    bt_buf body;
} pass_client;

/* cmocka's; the teardown fails when a descriptor is left over, whoever owned it. */
int pass_pair_setup(void **state);
int pass_pair_teardown(void **state);

/* Joins two sides by a new channel, up to and with the HELLO. */
void pass_link_open(pass_link *link, pass_side *from, pass_side *to);

/* Only the successor's end of it, in `to`; `fd` is taken. */
void pass_link_open_in(pass_link *link, pass_side *to, int fd);

/* Joins the old side and its successor anew: what the successor reads has changed. */
void pass_link_renew(pass_pair *pair);

/* The side whose loop this is. Not for connections of pass_pair.extra. */
pass_side *pass_side_of(baton_conn *conn);

/* A process dies: the kernel closes all its descriptors, and nothing of ours runs any more. */
void pass_kill_old(pass_pair *pair);
void pass_kill_successor(pass_pair *pair);

void pass_turn_side(pass_side *side);
void pass_turn(pass_pair *pair);

/* Turns the loops until `condition` holds. */
#define PASS_UNTIL(pair, condition)                                                                                    \
    do {                                                                                                               \
        uint64_t pass_until_end = bt_clock_ms() + DEADLINE_MS;                                                         \
        while (!(condition)) {                                                                                         \
            if (bt_clock_ms() > pass_until_end)                                                                        \
                fail_msg("waited in vain until " #condition);                                                          \
            pass_turn(pair);                                                                                           \
        }                                                                                                              \
    } while (0)

void pass_client_open(pass_pair *pair, pass_client *client);
void pass_client_open_in(bt_loop *loop, const bt_endpoint *endpoint, pass_client *client);
void pass_client_close(pass_client *client);

/* Many at once, with as many descriptors as the system allows. */
pass_client *pass_open_many(pass_pair *pair, size_t count);
void pass_close_many(pass_client *clients, size_t count);

/* Opens many, and sends what the window allows to the successor; nothing is read yet. */
pass_client *pass_add_many(pass_pair *pair, size_t count);

/* Gives the connection unsent bytes that do not fit into a message. */
void pass_add_output(pass_client *client);

/* Adds the connection to the link's queue and sends what is queued. */
void pass_send(pass_link *link, pass_client *client);

/* Passes it, up to and with the verdict. */
void pass_over(pass_pair *pair, pass_link *link, pass_client *client);

/* Writes all of it, turning the loops meanwhile; _written also until the old side has read it. */
void pass_client_write(pass_pair *pair, pass_client *client, const void *data, size_t len);
void pass_client_written(pass_pair *pair, pass_client *client, const void *data, size_t len);

/* The body of the next answer, NUL-terminated, valid until the next one. */
const char *pass_client_answer(pass_pair *pair, pass_client *client);

/* One request, and who answered it ("old::", ...). */
const char *pass_ask(pass_pair *pair, pass_client *client);

/* The server's end is closed (or reset) / nothing waits to be read and the connection is open. */
bool pass_client_has_ended(const pass_client *client);
bool pass_client_is_quiet(const pass_client *client);

/* The connection of that id in the side's list, or NULL. */
baton_conn *pass_find(pass_side *side, uint64_t id);

int pass_descriptors(void);

static inline uint64_t pass_count(const bt_counter *counter)
{
    return bt_counter_value(counter);
}

#endif

/* proc/pass_wire.h: the messages of a pass (version 1), between two processes of one machine.
 *
 * successor -> old:   hello                                             once, before anything else
 * old -> successor:   header(CONNS) record payload record payload ...   with the descriptors by SCM_RIGHTS
 * successor -> old:   header(VERDICTS) verdict verdict ...
 *
 * The two may be built from different versions of baton. HELLO says which versions of the other messages its sender
 * reads, so its own layout is frozen: it has version 0 for ever, and what a later baton adds to it goes behind its last
 * field, where older ones do not look. All other messages have the newest version that both sides read.
 *
 * A record is followed by its payload (state, app, unread, unsent), or the payload is in a memfd whose descriptor
 * follows the connection's. Encoding trusts its input; decoding treats the bytes as hostile. Pure: no socket. */
#ifndef BT_PROC_PASS_WIRE_H
#define BT_PROC_PASS_WIRE_H

#include <base/buf.h>
#include <net/address.h>

#define BT_PASS_MAGIC       0x53415042u /* "BPAS" */
#define BT_PASS_VERSION_MIN 1           /* the oldest and the newest version of the messages that this baton reads */
#define BT_PASS_VERSION_MAX 1
#define BT_PASS_MAX_CONNS   64          /* connections in one message */
#define BT_PASS_MAX_BYTES   (32 * 1024) /* of one message; larger state goes into a memfd */
#define BT_PASS_MAX_FDS     (2 * BT_PASS_MAX_CONNS)
#define BT_PASS_WINDOW      256 /* connections sent and not yet answered */
#define BT_PASS_MAX_PAYLOAD (2u << 30)
#define BT_PASS_MAX_APP     (64u << 20) /* the application's state of one connection */

typedef enum bt_pass_type {
    BT_PASS_CONNS = 1,
    BT_PASS_VERDICTS = 2,
    BT_PASS_HELLO = 3,
} bt_pass_type;

typedef enum bt_verdict {
    BT_VERDICT_TAKEN = 0,
    BT_VERDICT_DRAINING,      /* the successor itself has been told to drain */
    BT_VERDICT_PROTOCOL,      /* unknown protocol or a state version it cannot read */
    BT_VERDICT_NO_DESCRIPTOR, /* out of descriptors */
    BT_VERDICT_NO_MEMORY,
    BT_VERDICT_MALFORMED,
    BT_VERDICT_APP, /* the application did not take it, or its state is none that it reads */
} bt_verdict;

typedef struct bt_pass_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t count;
    uint32_t reserved;
} bt_pass_header;

/* Follows a header of version 0. Frozen: see above. Integers as the machine has them. */
typedef struct bt_pass_hello {
    uint16_t wire_min; /* versions of the other messages that its sender reads */
    uint16_t wire_max;
    uint16_t reads_app;   /* 1: it reads the application's state (on_take exists) */
    uint16_t reserved;    /* 0 */
    uint32_t app_version; /* the newest version of that state it reads */
} bt_pass_hello;

typedef struct bt_pass_record {
    uint64_t id;
    uint16_t protocol; /* bt_protocol.wire_id */
    uint16_t protocol_version;
    uint16_t in_memfd; /* 1: the payload is in a memfd */
    uint16_t has_app;  /* 1: the connection had a user pointer, and on_pass has written what is in the payload */
    uint64_t requests;
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint64_t deadline_ms; /* CLOCK_MONOTONIC, 0 = none */
    int64_t taken;        /* bytes the peer had acknowledged when the stall was last looked at */
    uint64_t stall_ms;    /* the same scale: when a peer that takes nothing is given up */
    bt_address remote;
    uint32_t app_version;
    uint64_t state_len;
    uint64_t app_len;
    uint64_t unread_len;
    uint64_t unsent_len;
} bt_pass_record;

typedef struct bt_pass_verdict {
    uint64_t id;
    uint32_t verdict; /* bt_verdict */
    uint32_t reserved;
} bt_pass_verdict;

/* Sum of the four lengths. The record must have passed bt_pass_next or come from us. */
size_t bt_pass_payload_len(const bt_pass_record *record);

/* Makes `message` the whole HELLO. 0 or -ENOMEM. */
BATON_NODISCARD int bt_pass_add_hello(bt_buf *message, const bt_pass_hello *hello);

/* A HELLO of any baton's. 0 or -EPROTO. */
BATON_NODISCARD int bt_pass_read_hello(const void *data, size_t len, bt_pass_hello *hello);

/* The newest version that this baton and the sender of `hello` know, 0: there is none. */
uint16_t bt_pass_common_version(const bt_pass_hello *hello);

/* Starts a message / counts one more entry in it. 0 or -ENOMEM. */
BATON_NODISCARD int bt_pass_begin(bt_buf *message, bt_pass_type type, uint16_t version);
void bt_pass_count(bt_buf *message, uint32_t count);

BATON_NODISCARD int bt_pass_add_verdict(bt_buf *message, uint64_t id, bt_verdict verdict);

/* Reading a received message. */
typedef struct bt_pass_reader {
    const char *at;
    size_t left;
    uint32_t entries_left;
    uint16_t version;
} bt_pass_reader;

/* Checks the header. 0 or -EPROTO. */
BATON_NODISCARD int bt_pass_open(bt_pass_reader *reader, const void *data, size_t len, bt_pass_type type);

/* The next record; `*payload` points into the message, or is NULL when it is in a memfd. Returns 1, 0 at the end of the
 * message, or -EPROTO (nothing behind it can be trusted). */
BATON_NODISCARD int bt_pass_next(bt_pass_reader *reader, bt_pass_record *record, const char **payload);

/* The next verdict: 1, 0 or -EPROTO. */
BATON_NODISCARD int bt_pass_next_verdict(bt_pass_reader *reader, bt_pass_verdict *verdict);

#endif

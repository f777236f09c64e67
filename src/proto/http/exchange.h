/* proto/http/exchange.h: one request and its answer on a connection; the state behind conn->proto.
 * An idle connection has none: exchanges come from a spare one per loop. */
#ifndef BT_PROTO_HTTP_EXCHANGE_H
#define BT_PROTO_HTTP_EXCHANGE_H

#include <net/conn.h>
#include <proto/http/request.h>
#include <proto/http/response.h>

/*   READING --whole request--> HANDLING --baton_reply_start--> STREAMING
 *      ^                          |                               |
 *      |      next request        | baton_reply                   | baton_reply_end
 *      +------------------------ DONE <---------------------------+        */
typedef enum bt_http_stage {
    BT_HTTP_STAGE_READING,
    BT_HTTP_STAGE_HANDLING,
    BT_HTTP_STAGE_STREAMING,
    BT_HTTP_STAGE_DONE,
} bt_http_stage;

typedef struct bt_http_exchange {
    baton_request request; /* first: the request handle leads back here */
    baton_conn *conn;
    bt_http_stage stage;
    bool is_head;       /* the request method is HEAD */
    bool in_callback;   /* on_request is running: the loop in serve.c goes on by itself */
    bool sent_continue; /* 100 (Continue) went out for this request */
    bool close_after;   /* the connection ends with this answer */
    bt_http_framing framing;
    uint64_t length_left; /* of a streamed body with a known length */
    bt_buf fields;        /* lines added by baton_reply_header */
    bt_buf trailers;
    bt_http_field headers[]; /* endpoint->max_headers */
} bt_http_exchange;

extern const bt_protocol bt_http_protocol;

/* The answer is complete: the next request, the pass or the end follows. */
void bt_http_exchange_done(bt_http_exchange *exchange);

/* Answers a request that could not be parsed or took too long, then closes. */
void bt_http_refuse(baton_conn *conn, int status);

/* The Date value of this second. */
const char *bt_http_date_now(bt_loop *loop);

#endif

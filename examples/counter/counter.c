/* counter: every connection counts its own requests, and goes on counting when a reload passes it to new code. */
#include <baton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_connect(baton_conn *conn)
{
    uint64_t *count = calloc(1, sizeof *count);
    baton_conn_set_user(conn, count);
    if (count == NULL)
        baton_close(conn);
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    char text[32];
    uint64_t *count = baton_conn_user(conn);
    snprintf(text, sizeof text, "%llu\n", (unsigned long long) ++*count);
    baton_reply(conn, 200, "text/plain", text);
}

/* The old process writes what it keeps, the new one reads it... */
static int on_pass(baton_conn *conn, baton_pass *pass)
{
    return baton_pass_write(pass, baton_conn_user(conn), sizeof(uint64_t));
}

static int on_take(baton_conn *conn, uint32_t version, baton_str state)
{
    (void) version;
    uint64_t *count = calloc(1, sizeof *count);
    if (count == NULL)
        return -1; /* the old process keeps the connection */
    if (state.len == sizeof *count)
        memcpy(count, state.data, state.len);
    baton_conn_set_user(conn, count);
    return 0;
}

/* ... and both let go of it in the end: of a connection that has passed, or that has closed. */
static void forget(baton_conn *conn)
{
    free(baton_conn_user(conn));
}

BATON_MODULE(.on_connect = on_connect, .on_request = on_request, .on_pass = on_pass, .on_take = on_take,
             .on_passed = forget, .on_close = forget);

/* baton/types.h: the words every other public header uses.
 * Opaque handles, borrowed bytes and the attributes of the API. */
#ifndef BATON_TYPES_H
#define BATON_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Marks what the shared library and the baton command export. */
#define BATON_API __attribute__((visibility("default")))

/* The caller must look at the result: 0 (or a count) is success, a negative errno is failure. */
#define BATON_NODISCARD __attribute__((warn_unused_result))

/* One accepted connection. Valid until on_close returns, or for as long as the application holds
 * a reference (baton_conn_ref). Belongs to the thread of its process's loop. */
typedef struct baton_conn baton_conn;

/* One worker as its process sees it (Workerman: Worker). Lives as long as the process. */
typedef struct baton_worker baton_worker;

/* One received HTTP request. Valid until on_request returns, or until its response has ended
 * after baton_request_keep(). */
typedef struct baton_request baton_request;

/* One one-shot or repeating timer. */
typedef struct baton_timer baton_timer;

/* What on_pass writes to. Valid until it returns. */
typedef struct baton_pass baton_pass;

/* Borrowed bytes: not NUL-terminated, never freed by the receiver. `data` is NULL when the thing
 * asked for does not exist; an existing empty value has a non-NULL `data` and `len` 0. */
typedef struct baton_str {
    const char *data;
    size_t len;
} baton_str;

/* printf("%.*s", BATON_ARG(view)) */
#define BATON_ARG(view) (int) (view).len, (view).data

/* A three-way switch for options whose default is not "off". */
typedef enum baton_switch {
    BATON_DEFAULT = 0,
    BATON_ON = 1,
    BATON_OFF = 2,
} baton_switch;

#endif

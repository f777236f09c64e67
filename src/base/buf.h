/* base/buf.h: a growable byte buffer that is filled at its end and consumed from its front.
 * Knows no socket and no protocol. A zeroed struct is a valid empty buffer that owns nothing. */
#ifndef BT_BASE_BUF_H
#define BT_BASE_BUF_H

#include <assert.h>
#include <baton/types.h>
#include <stdarg.h>
#include <string.h>

typedef struct bt_buf {
    char *data;   /* the allocation; NULL when cap is 0 */
    size_t start; /* first byte not yet consumed */
    size_t end;   /* one past the last byte */
    size_t cap;
} bt_buf;

static inline size_t bt_buf_len(const bt_buf *buf)
{
    return buf->end - buf->start;
}

/* Both are NULL for a buffer without memory: NULL + 0 is undefined in C. */
static inline char *bt_buf_head(const bt_buf *buf)
{
    return buf->data ? buf->data + buf->start : NULL;
}

static inline char *bt_buf_tail(const bt_buf *buf)
{
    return buf->data ? buf->data + buf->end : NULL;
}

/* Makes room for `extra` more bytes behind the end (moving or growing, at least doubling).
 * Pointers into the buffer become invalid. Returns 0 or -ENOMEM, then nothing has changed. */
BATON_NODISCARD int bt_buf_grow(bt_buf *buf, size_t extra);

static inline BATON_NODISCARD int bt_buf_reserve(bt_buf *buf, size_t extra)
{
    return buf->cap - buf->end >= extra ? 0 : bt_buf_grow(buf, extra);
}

/* Appends `len` bytes. `data` may be NULL when `len` is 0. Returns 0 or -ENOMEM. */
static inline BATON_NODISCARD int bt_buf_append(bt_buf *buf, const void *data, size_t len)
{
    int err = bt_buf_reserve(buf, len);
    if (err < 0 || len == 0)
        return err;
    assert(buf->data != NULL); /* room for more than nothing is memory */
    memcpy(buf->data + buf->end, data, len);
    buf->end += len;
    return 0;
}

/* Appends formatted text. Returns 0, -ENOMEM, or -EINVAL for what printf cannot format. */
BATON_NODISCARD int bt_buf_printf(bt_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops `len` bytes from the front; an emptied buffer starts over at its beginning. */
static inline void bt_buf_consume(bt_buf *buf, size_t len)
{
    buf->start += len;
    if (buf->start == buf->end)
        buf->start = buf->end = 0;
}

static inline void bt_buf_clear(bt_buf *buf)
{
    buf->start = buf->end = 0;
}

/* Frees the memory; the buffer is empty and reusable. */
void bt_buf_free(bt_buf *buf);

#endif

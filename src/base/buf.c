/* base/buf.c: growth of the byte buffer and formatted appending.
 * Knows no socket and no protocol. */
#include <base/buf.h>

#include <base/alloc.h>
#include <errno.h>
#include <stdio.h>

enum { SMALLEST = 256 };

int bt_buf_grow(bt_buf *buf, size_t extra)
{
    size_t len = bt_buf_len(buf);
    if (extra > SIZE_MAX / 2 - len)
        return -ENOMEM;

    /* Moving only when at least as much was consumed as is left keeps appending linear: a buffer that
     * is eaten byte by byte would otherwise be moved at each append. */
    if (buf->start >= len && buf->cap - len >= extra) {
        if (len > 0)
            memmove(buf->data, buf->data + buf->start, len);
        buf->start = 0;
        buf->end = len;
        return 0;
    }

    size_t cap = buf->cap < SMALLEST ? SMALLEST : buf->cap * 2;
    if (cap < len + extra)
        cap = len + extra;
    char *data = bt_malloc(cap);
    if (!data)
        return -ENOMEM;
    if (len > 0)
        memcpy(data, buf->data + buf->start, len);
    free(buf->data);
    *buf = (bt_buf){.data = data, .end = len, .cap = cap};
    return 0;
}

/* Formats into the free room. Returns the length the whole text has, or a negative errno. */
__attribute__((format(printf, 2, 0))) static int format_into_room(bt_buf *buf, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(bt_buf_tail(buf), buf->cap - buf->end, format, again);
    va_end(again);
    return len < 0 ? -EINVAL : len;
}

int bt_buf_printf(bt_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = format_into_room(buf, format, args);
    /* vsnprintf also wants room for a NUL, which is written but never becomes part of the buffer. */
    if (len >= 0 && (size_t) len >= buf->cap - buf->end) {
        int err = bt_buf_grow(buf, (size_t) len + 1);
        len = err ? err : format_into_room(buf, format, args);
    }
    va_end(args);
    if (len < 0)
        return len;
    buf->end += (size_t) len;
    return 0;
}

void bt_buf_free(bt_buf *buf)
{
    free(buf->data);
    *buf = (bt_buf){0};
}

/* proto/codecs.c: how a message begins and ends in tcp, text and frame (Workerman's Protocols\Text and Frame).
 * Pure: bytes in, lengths out. */
#include <errno.h>
#include <proto/stream.h>

/* ---- tcp: whatever was read ---- */

static int64_t tcp_input(const char *data, size_t len, uint64_t max_package, uint32_t *scanned)
{
    (void) data;
    (void) max_package;
    (void) scanned;
    return (int64_t) len;
}

static baton_str tcp_decode(const char *data, size_t len)
{
    return (baton_str){data, len};
}

static int tcp_encode(bt_buf *out, const void *data, size_t len)
{
    return bt_buf_append(out, data, len);
}

const bt_codec bt_tcp_codec = {tcp_input, tcp_decode, tcp_encode};

/* ---- text: a line ---- */

static int64_t text_input(const char *data, size_t len, uint64_t max_package, uint32_t *scanned)
{
    const char *end = memchr(data + *scanned, '\n', len - *scanned);
    size_t size = end == NULL ? len : (size_t) (end - data) + 1;
    if (size > max_package)
        return -EMSGSIZE;
    if (end == NULL) {
        *scanned = (uint32_t) len;
        return 0;
    }
    return (int64_t) size;
}

static baton_str text_decode(const char *data, size_t len)
{
    while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        len--;
    return (baton_str){data, len};
}

static int text_encode(bt_buf *out, const void *data, size_t len)
{
    int err = bt_buf_reserve(out, len + 1);
    if (err == 0)
        err = bt_buf_append(out, data, len);
    return err < 0 ? err : bt_buf_append(out, "\n", 1);
}

const bt_codec bt_text_codec = {text_input, text_decode, text_encode};

/* ---- frame: 4-byte big-endian total length, counting itself ---- */

#define FRAME_HEAD 4

static int64_t frame_input(const char *data, size_t len, uint64_t max_package, uint32_t *scanned)
{
    (void) scanned;
    if (len < FRAME_HEAD)
        return 0;
    const unsigned char *head = (const unsigned char *) data;
    uint32_t size = (uint32_t) head[0] << 24 | (uint32_t) head[1] << 16 | (uint32_t) head[2] << 8 | head[3];
    if (size < FRAME_HEAD)
        return -EPROTO;
    if (size > max_package)
        return -EMSGSIZE;
    return len < size ? 0 : size;
}

static baton_str frame_decode(const char *data, size_t len)
{
    return (baton_str){data + FRAME_HEAD, len - FRAME_HEAD};
}

static int frame_encode(bt_buf *out, const void *data, size_t len)
{
    if (len > UINT32_MAX - FRAME_HEAD)
        return -EMSGSIZE;
    uint32_t size = (uint32_t) len + FRAME_HEAD;
    unsigned char head[FRAME_HEAD] = {(unsigned char) (size >> 24), (unsigned char) (size >> 16),
                                      (unsigned char) (size >> 8), (unsigned char) size};
    int err = bt_buf_reserve(out, size);
    if (err == 0)
        err = bt_buf_append(out, head, sizeof head);
    return err < 0 ? err : bt_buf_append(out, data, len);
}

const bt_codec bt_frame_codec = {frame_input, frame_decode, frame_encode};

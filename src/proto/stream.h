/* proto/stream.h: the protocols made of single messages: tcp (whatever was read), text (lines), frame (4-byte length).
 * A codec finds a message's end and encodes one; stream.c does the rest, the pass included. */
#ifndef BT_PROTO_STREAM_H
#define BT_PROTO_STREAM_H

#include <net/protocol.h>

extern const bt_protocol bt_tcp_protocol;
extern const bt_protocol bt_text_protocol;
extern const bt_protocol bt_frame_protocol;

typedef struct bt_codec {
    /* Length of the first whole message on the wire, 0 when its end has not arrived, negative errno for bad input.
     * `*scanned` (bytes known to hold no end) is kept between calls, so that nothing is searched twice. */
    int64_t (*input)(const char *data, size_t len, uint64_t max_package, uint32_t *scanned);

    /* The message inside its wire form. */
    baton_str (*decode)(const char *data, size_t len);

    int (*encode)(bt_buf *out, const void *data, size_t len);
} bt_codec;

extern const bt_codec bt_tcp_codec;
extern const bt_codec bt_text_codec;
extern const bt_codec bt_frame_codec;

#endif

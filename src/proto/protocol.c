/* proto/protocol.c: the table of protocols.
 * Must not know what any of them does. */
#include <proto/http/exchange.h>
#include <proto/protocol.h>
#include <proto/stream.h>

static const bt_protocol *const protocols[] = {
    &bt_http_protocol,
    &bt_tcp_protocol,
    &bt_text_protocol,
    &bt_frame_protocol,
};

const bt_protocol *bt_protocol_find(const char *scheme)
{
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        if (strcmp(protocols[i]->name, scheme) == 0)
            return protocols[i];
    }
    return NULL;
}

bool bt_protocol_exists(const char *scheme)
{
    return bt_protocol_find(scheme) != NULL;
}

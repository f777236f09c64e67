/* proto/protocol.h: the protocols there are, by the scheme of a listen address. */
#ifndef BT_PROTO_PROTOCOL_H
#define BT_PROTO_PROTOCOL_H

#include <net/protocol.h>

/* NULL when no protocol has that name. */
const bt_protocol *bt_protocol_find(const char *scheme);

bool bt_protocol_exists(const char *scheme);

#endif

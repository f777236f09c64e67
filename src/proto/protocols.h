/* proto/protocols.h: every protocol a listen address may name. */
#ifndef BT_PROTO_PROTOCOLS_H
#define BT_PROTO_PROTOCOLS_H

#include <net/protocol.h>

/* By the scheme of a listen address, or by the number in a pass; NULL when there is none. */
const bt_protocol *bt_protocol_find(const char *scheme);
const bt_protocol *bt_protocol_find_wire(uint16_t wire_id);

bool bt_protocol_exists(const char *scheme);

#endif

/* proto/protocols.c: the table of protocols.
 * Must not know anything of them but their names. */
#include <proto/protocols.h>

#include <proto/http/exchange.h>
#include <string.h>

static const bt_protocol *const protocols[] = {&bt_http_protocol, NULL};

const bt_protocol *bt_protocol_find(const char *scheme)
{
    for (const bt_protocol *const *p = protocols; *p; p++) {
        if (strcmp((*p)->name, scheme) == 0)
            return *p;
    }
    return NULL;
}

const bt_protocol *bt_protocol_find_wire(uint16_t wire_id)
{
    for (const bt_protocol *const *p = protocols; *p; p++) {
        if ((*p)->wire_id == wire_id)
            return *p;
    }
    return NULL;
}

bool bt_protocol_exists(const char *scheme)
{
    return bt_protocol_find(scheme) != NULL;
}

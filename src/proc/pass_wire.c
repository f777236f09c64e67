/* proc/pass_wire.c: encodes and decodes the messages of a pass.
 * Must not know sockets, descriptors or connections. */
#include <errno.h>
#include <proc/pass_wire.h>

_Static_assert(sizeof(bt_pass_header) == 16 && sizeof(bt_pass_record) == 120 && sizeof(bt_pass_verdict) == 16,
               "the wire format has no padding that differs between compilers");
_Static_assert(sizeof(bt_pass_hello) == 12 && offsetof(bt_pass_hello, app_version) == 8,
               "frozen: every baton that will ever be must read it");

#define HELLO_VERSION 0

size_t bt_pass_payload_len(const bt_pass_record *record)
{
    return record->state_len + record->app_len + record->unread_len + record->unsent_len;
}

int bt_pass_add_hello(bt_buf *message, const bt_pass_hello *hello)
{
    int err = bt_pass_begin(message, BT_PASS_HELLO, HELLO_VERSION);
    return err < 0 ? err : bt_buf_append(message, hello, sizeof *hello);
}

int bt_pass_read_hello(const void *data, size_t len, bt_pass_hello *hello)
{
    bt_pass_header header;
    if (len < sizeof header + sizeof *hello)
        return -EPROTO;
    memcpy(&header, data, sizeof header);
    memcpy(hello, (const char *) data + sizeof header, sizeof *hello);
    bool is_hello = header.magic == BT_PASS_MAGIC && header.version == HELLO_VERSION && header.type == BT_PASS_HELLO;
    return is_hello && hello->wire_min <= hello->wire_max ? 0 : -EPROTO;
}

uint16_t bt_pass_common_version(const bt_pass_hello *hello)
{
    uint16_t newest = hello->wire_max < BT_PASS_VERSION_MAX ? hello->wire_max : BT_PASS_VERSION_MAX;
    uint16_t oldest = hello->wire_min > BT_PASS_VERSION_MIN ? hello->wire_min : BT_PASS_VERSION_MIN;
    return newest >= oldest ? newest : 0;
}

int bt_pass_begin(bt_buf *message, bt_pass_type type, uint16_t version)
{
    bt_pass_header header = {.magic = BT_PASS_MAGIC, .version = version, .type = (uint16_t) type};
    bt_buf_clear(message);
    return bt_buf_append(message, &header, sizeof header);
}

void bt_pass_count(bt_buf *message, uint32_t count)
{
    memcpy(bt_buf_head(message) + offsetof(bt_pass_header, count), &count, sizeof count);
}

int bt_pass_add_verdict(bt_buf *message, uint64_t id, bt_verdict verdict)
{
    bt_pass_verdict entry = {.id = id, .verdict = verdict};
    return bt_buf_append(message, &entry, sizeof entry);
}

int bt_pass_open(bt_pass_reader *reader, const void *data, size_t len, bt_pass_type type)
{
    bt_pass_header header;
    if (len < sizeof header)
        return -EPROTO;
    memcpy(&header, data, sizeof header);
    bool is_known = header.version >= BT_PASS_VERSION_MIN && header.version <= BT_PASS_VERSION_MAX;
    if (header.magic != BT_PASS_MAGIC || !is_known || header.type != type || header.count > BT_PASS_MAX_CONNS)
        return -EPROTO;
    *reader = (bt_pass_reader){.at = (const char *) data + sizeof header,
                               .left = len - sizeof header,
                               .entries_left = header.count,
                               .version = header.version};
    return 0;
}

/* Copies the next `size` bytes out; false when the message is too short. */
static bool take(bt_pass_reader *reader, void *out, size_t size)
{
    if (reader->left < size)
        return false;
    memcpy(out, reader->at, size);
    reader->at += size;
    reader->left -= size;
    return true;
}

static bool is_plausible(const bt_pass_record *record)
{
    const uint64_t lengths[] = {record->state_len, record->app_len, record->unread_len, record->unsent_len};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (lengths[i] > BT_PASS_MAX_PAYLOAD)
            return false;
        sum += lengths[i];
    }
    bool is_app_plausible = record->has_app <= 1 && record->app_len <= (record->has_app ? BT_PASS_MAX_APP : 0);
    return sum <= BT_PASS_MAX_PAYLOAD && record->in_memfd <= 1 && is_app_plausible;
}

int bt_pass_next(bt_pass_reader *reader, bt_pass_record *record, const char **payload)
{
    *payload = NULL;
    if (reader->entries_left == 0)
        return reader->left == 0 ? 0 : -EPROTO;
    if (!take(reader, record, sizeof *record) || !is_plausible(record))
        return -EPROTO;
    reader->entries_left--;
    if (record->in_memfd)
        return 1;
    size_t len = bt_pass_payload_len(record);
    if (reader->left < len)
        return -EPROTO;
    *payload = reader->at;
    reader->at += len;
    reader->left -= len;
    return 1;
}

int bt_pass_next_verdict(bt_pass_reader *reader, bt_pass_verdict *verdict)
{
    if (reader->entries_left == 0)
        return reader->left == 0 ? 0 : -EPROTO;
    if (!take(reader, verdict, sizeof *verdict))
        return -EPROTO;
    reader->entries_left--;
    return 1;
}

/* tests/fuzz/fuzz_pass_wire.c: the messages of a pass are read as hostile input: every view stays inside the message.
 * First byte: which kind of message the rest is read as. */
#include <assert.h>
#include <proc/pass_wire.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum_bytes(const char *at, size_t len)
{
    uint64_t sum = 0; /* touches every byte, so that a sanitizer sees a view that is too long */
    for (size_t i = 0; i < len; i++)
        sum += (unsigned char) at[i];
    return sum;
}

static void read_conns(const uint8_t *data, size_t size)
{
    bt_pass_reader reader;
    bt_pass_record record;
    const char *payload;
    size_t seen = 0;
    if (bt_pass_open(&reader, data, size, BT_PASS_CONNS) < 0)
        return;
    while (bt_pass_next(&reader, &record, &payload) > 0) {
        size_t len = bt_pass_payload_len(&record);
        assert(record.app_len <= (record.has_app ? BT_PASS_MAX_APP : 0));
        assert(record.in_memfd == (payload == NULL) && len <= BT_PASS_MAX_PAYLOAD);
        if (payload != NULL)
            assert(sum_bytes(payload, len) <= len * 255);
        assert(++seen <= BT_PASS_MAX_CONNS);
    }
}

static void read_verdicts(const uint8_t *data, size_t size)
{
    bt_pass_reader reader;
    bt_pass_verdict verdict;
    size_t seen = 0;
    if (bt_pass_open(&reader, data, size, BT_PASS_VERDICTS) < 0)
        return;
    while (bt_pass_next_verdict(&reader, &verdict) > 0)
        assert(++seen <= BT_PASS_MAX_CONNS);
}

static void read_hello(const uint8_t *data, size_t size)
{
    bt_pass_hello hello;
    if (bt_pass_read_hello(data, size, &hello) < 0)
        return;
    uint16_t version = bt_pass_common_version(&hello);
    assert(version == 0 || (version >= BT_PASS_VERSION_MIN && version <= BT_PASS_VERSION_MAX));
    assert(version == 0 || (version >= hello.wire_min && version <= hello.wire_max));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 2)
        read_hello(data + 1, size - 1);
    else if (data[0] & 1)
        read_conns(data + 1, size - 1);
    else
        read_verdicts(data + 1, size - 1);
    return 0;
}

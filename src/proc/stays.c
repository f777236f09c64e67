/* proc/stays.c: one look at each connection of a leaving process.
 * Must not change any of them but for the mark that it was counted. */
#include <proc/stays.h>
#include <stdio.h>

const char *const bt_stay_words[BT_STAYS] = {
    [BT_STAY_REQUEST] = "request", [BT_STAY_RESPONSE] = "mid-response", [BT_STAY_APP_STATE] = "app state",
    [BT_STAY_TLS] = "tls",         [BT_STAY_REFUSED] = "refused",       [BT_STAY_CLOSING] = "closing",
};

/* BT_STAYS: nothing keeps it; it waits for its turn or for a successor. */
static bt_stay stay_of(const baton_conn *conn)
{
    const bt_protocol *protocol = conn->endpoint->protocol;
    bt_departure departure = conn->loop->departure;
    if (conn->state != BT_CONN_OPEN)
        return BT_STAY_CLOSING;
    if (departure == BT_DEPARTURE_NONE)
        return BT_STAYS;
    if (departure == BT_DEPARTURE_PASS && bt_conn_is_tied(conn))
        return BT_STAY_APP_STATE; /* before what is being handled: that passes, this does not */
    if (!protocol->is_passable(conn)) {
        bool is_half = protocol->is_half_answered != NULL && protocol->is_half_answered(conn);
        return is_half ? BT_STAY_RESPONSE : BT_STAY_REQUEST;
    }
    if (conn->refused || departure == BT_DEPARTURE_STRAND)
        return BT_STAY_REFUSED;
    return conn->peer_ended || conn->leaves ? BT_STAY_CLOSING : BT_STAYS;
}

static bool successor_asks(const bt_loop *loop)
{
    return loop->departure == BT_DEPARTURE_PASS || loop->departure == BT_DEPARTURE_STRAND;
}

void bt_stays_count(bt_loop *loop, bt_counters *own, bt_counters *crew)
{
    uint64_t stays[BT_STAYS] = {0};
    bt_list_each (node, &loop->conns) {
        baton_conn *conn = bt_container(node, baton_conn, node);
        bt_stay stay = stay_of(conn);
        if (stay == BT_STAYS)
            continue;
        stays[stay]++;
        if (!conn->is_stay_counted && successor_asks(loop)) {
            conn->is_stay_counted = true;
            bt_count_shared(&crew->stayed[stay], 1);
        }
    }
    for (size_t i = 0; i < BT_STAYS; i++)
        atomic_store_explicit(&own->stays[i], stays[i], memory_order_relaxed);
}

void bt_stays_clear(bt_counters *own)
{
    for (size_t i = 0; i < BT_STAYS; i++)
        atomic_store_explicit(&own->stays[i], 0, memory_order_relaxed);
}

const char *bt_stays_text(const bt_counters *own, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < BT_STAYS && len < size; i++) {
        uint64_t count = bt_counter_value(&own->stays[i]);
        if (count > 0)
            len += (size_t) snprintf(out + len, size - len, "%s%llu %s", len == 0 ? "" : ", ",
                                     (unsigned long long) count, bt_stay_words[i]);
    }
    return out;
}

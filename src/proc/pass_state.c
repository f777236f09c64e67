/* proc/pass_state.c: runs on_pass and on_take, and bounds what they exchange.
 * Must not know channels and messages. */
#include <base/failpoint.h>
#include <errno.h>
#include <proc/pass_state.h>

/* The wire versions of a successor that nobody here understands: for the tests of a mismatch. */
#define UNKNOWN_VERSION (BT_PASS_VERSION_MAX + 1)

struct baton_pass {
    bt_buf *out;
    size_t len;
    uint32_t version;
    int err; /* of the first write that failed: state cut short must not travel */
};

/* state_version is a size_t among the callbacks so that a module's descriptor has members of one size only. */
static uint32_t version_of(const baton_callbacks *callbacks)
{
    return callbacks->state_version > UINT32_MAX ? UINT32_MAX : (uint32_t) callbacks->state_version;
}

bt_pass_hello bt_pass_hello_of(const baton_callbacks *callbacks)
{
    bool is_mismatch = bt_failpoint("pass-in:wire-version") < 0;
    return (bt_pass_hello){
        .wire_min = is_mismatch ? UNKNOWN_VERSION : BT_PASS_VERSION_MIN,
        .wire_max = is_mismatch ? UNKNOWN_VERSION : BT_PASS_VERSION_MAX,
        .reads_app = callbacks->on_take != NULL,
        .app_version = version_of(callbacks),
    };
}

bool bt_app_travels(const baton_callbacks *callbacks, const bt_pass_hello *hello)
{
    return callbacks->on_pass != NULL && hello->reads_app;
}

int bt_app_save(baton_conn *conn, const bt_pass_hello *hello, bt_pass_record *record, bt_buf *out)
{
    const baton_callbacks *callbacks = conn->endpoint->callbacks;
    if (conn->user == NULL)
        return 0;
    if (!bt_app_travels(callbacks, hello))
        return -ECANCELED; /* the pointer was set while the connection waited */
    uint32_t version = version_of(callbacks);
    baton_pass pass = {.out = out, .version = version < hello->app_version ? version : hello->app_version};
    if (callbacks->on_pass(conn, &pass) != 0 || pass.err < 0)
        return -ECANCELED;
    record->has_app = 1;
    record->app_version = pass.version;
    record->app_len = pass.len;
    return 0;
}

bool bt_app_is_readable(const baton_callbacks *callbacks, const bt_pass_record *record)
{
    return !record->has_app || (callbacks->on_take != NULL && record->app_version <= version_of(callbacks));
}

int bt_app_take(baton_conn *conn, const bt_pass_record *record, const char *bytes)
{
    const baton_callbacks *callbacks = conn->endpoint->callbacks;
    if (callbacks->on_take == NULL)
        return 0;
    baton_str state = {record->has_app ? bytes : NULL, record->app_len}; /* of no bytes: not the same as no state */
    if (callbacks->on_take(conn, record->app_version, state) == 0)
        return 0;
    conn->user = NULL; /* what it had made it has freed: no on_passed */
    return -ECANCELED;
}

/* ---- the public calls of on_pass ---- */

uint32_t baton_pass_version(const baton_pass *pass)
{
    return pass->version;
}

int baton_pass_write(baton_pass *pass, const void *data, size_t len)
{
    int err = len > BT_PASS_MAX_APP - pass->len ? -EMSGSIZE : bt_buf_append(pass->out, data, len);
    if (err == 0)
        pass->len += len;
    else
        pass->err = err;
    return err;
}

/* net/loop_shut.c: closes a libuv loop and everything in it.
 * Must not know what the handles are for. */
#include <net/loop_shut.h>

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void) arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void bt_loop_shut(uv_loop_t *loop)
{
    uv_walk(loop, close_handle, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
}

/* good: a module that uses the framework and serves. */
#include <baton.h>

static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    return 0;
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", baton_version());
}

BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);

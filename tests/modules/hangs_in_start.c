/* hangs_in_start: on_worker_start does not return. */
#include <baton.h>
#include <unistd.h>

static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    while (pause() != 0)
        continue;
    return 0;
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "never seen");
}

BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);

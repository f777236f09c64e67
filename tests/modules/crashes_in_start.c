/* crashes_in_start: the process dies of SIGSEGV in on_worker_start, also under a sanitizer. */
#include <baton.h>
#include <signal.h>

static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
    return 0;
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "never seen");
}

BATON_MODULE(.on_worker_start = on_worker_start, .on_request = on_request);

/* handler.so: a module that each process loads in on_worker_start. Change the text, compile, and
 * `start-program reload`: open connections get the new answer, without having been closed. */
#include <baton.h>

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "module 1");
}

BATON_MODULE(.on_request = on_request);

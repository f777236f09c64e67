/* hello: a whole service. Everything else is in baton.ini beside it. */
#include <baton.h>

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "hi");
}

BATON_MODULE(.on_request = on_request);

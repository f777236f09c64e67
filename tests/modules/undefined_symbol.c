/* undefined_symbol: calls what nobody defines. */
#include <baton.h>

int no_such_function(void);

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply_error(conn, no_such_function());
}

BATON_MODULE(.on_request = on_request);

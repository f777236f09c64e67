/* crashes_on_load: a constructor dies of SIGSEGV, so that dlopen does not return. */
#include <baton.h>
#include <signal.h>

__attribute__((constructor)) static void die(void)
{
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

static void on_request(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "never seen");
}

BATON_MODULE(.on_request = on_request);

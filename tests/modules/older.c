/* older: a descriptor of a time that knew two callbacks. What lies behind them is not for the framework. */
#include <baton.h>

/* The ABI number is written out: this module stays as it is when BATON_ABI is raised, and is refused then. */
typedef struct descriptor_of_old {
    uint32_t abi;
    uint32_t size;
    int (*on_worker_start)(baton_worker *worker);
    void (*on_worker_stop)(baton_worker *worker);
    const char *something_else;
} descriptor_of_old;

static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    return 0;
}

static void on_worker_stop(baton_worker *worker)
{
    (void) worker;
}

BATON_API extern const descriptor_of_old baton_module;
const descriptor_of_old baton_module = {
    .abi = 1,
    .size = offsetof(descriptor_of_old, something_else),
    .on_worker_start = on_worker_start,
    .on_worker_stop = on_worker_stop,
    .something_else = "not a callback",
};

/* newer_unused: a descriptor of a time to come that uses nothing new. */
#include <baton.h>

typedef struct descriptor_to_come {
    baton_module_descriptor known;
    void (*on_something_new)(void);
} descriptor_to_come;

static int on_worker_start(baton_worker *worker)
{
    (void) worker;
    return 0;
}

BATON_API extern const descriptor_to_come baton_module;
const descriptor_to_come baton_module = {
    .known = {.abi = BATON_ABI, .size = sizeof(descriptor_to_come), .callbacks = {.on_worker_start = on_worker_start}},
};

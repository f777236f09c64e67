/* newer: a descriptor of a time to come, with a callback that this baton does not know. */
#include <baton.h>

typedef struct descriptor_to_come {
    baton_module_descriptor known;
    void (*on_something_new)(void);
} descriptor_to_come;

static void on_something_new(void)
{
}

BATON_API extern const descriptor_to_come baton_module;
const descriptor_to_come baton_module = {
    .known = {.abi = BATON_ABI, .size = sizeof(descriptor_to_come)},
    .on_something_new = on_something_new,
};

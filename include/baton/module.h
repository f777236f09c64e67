/* baton/module.h: what makes a shared object a baton module. */
#ifndef BATON_MODULE_H
#define BATON_MODULE_H

#include <baton/worker.h>

/* Raised when a struct or a meaning in include/baton changes incompatibly. */
#define BATON_ABI 1u

/* What the symbol `baton_module` must be. `size` lets older modules lack newer callbacks. */
typedef struct baton_module_descriptor {
    uint32_t abi;
    uint32_t size;
    baton_callbacks callbacks;
} baton_module_descriptor;

/* Once per module, at file scope: BATON_MODULE(.on_request = on_request); */
#define BATON_MODULE(...)                                                                                              \
    BATON_API const baton_module_descriptor baton_module = {                                                           \
        .abi = BATON_ABI, .size = sizeof(baton_module_descriptor), .callbacks = {__VA_ARGS__}}

#endif

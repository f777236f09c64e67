/* wrong_abi: built against headers of another ABI. */
#include <baton.h>

BATON_API const baton_module_descriptor baton_module = {.abi = BATON_ABI + 1, .size = sizeof(baton_module_descriptor)};

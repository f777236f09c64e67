/* odd_descriptor: the symbol exists, but is smaller than a descriptor. */
#include <baton/types.h>

BATON_API extern const int baton_module;
const int baton_module = 1;

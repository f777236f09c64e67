/* app/module.h: loads a module's pinned copy into the running process. Never unloads. */
#ifndef BT_APP_MODULE_H
#define BT_APP_MODULE_H

#include <baton/module.h>

/* dlopen(RTLD_NOW | RTLD_LOCAL), finds `baton_module`, checks the ABI and the size, and that the module has not brought
 * a second libbaton (baton_version looked up through the module must be ours). `path` has a directory part. Fills
 * *callbacks (fields the module is too old to know are NULL). Returns 0 or a negative errno with one line in `why`:
 *   "hello.so: no symbol baton_module: is BATON_MODULE(...) missing?"
 *   "hello.so: built for ABI 2, this baton has ABI 1: rebuild the module" */
BATON_NODISCARD int bt_module_load(const char *path, baton_callbacks *callbacks, char *why, size_t why_size);

#endif

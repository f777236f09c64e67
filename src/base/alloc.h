/* base/alloc.h: memory for the library's own objects: malloc's calls, which a test can make fail.
 * In builds with fail-points each of them passes the point "alloc"; in others they are the plain calls. Freed by
 * free().
 *
 * Arming "alloc" with "every 50" and "role web.0" fails each 50th allocation of that process. Not for what libraries
 * allocate (libuv aborts when it cannot), nor for reading a configuration. */
#ifndef BT_BASE_ALLOC_H
#define BT_BASE_ALLOC_H

#include <base/failpoint.h>
#include <stdlib.h>
#include <string.h>

static inline __attribute__((malloc, warn_unused_result)) void *bt_malloc(size_t size)
{
    return bt_failpoint("alloc") < 0 ? NULL : malloc(size);
}

static inline __attribute__((malloc, warn_unused_result)) void *bt_calloc(size_t count, size_t size)
{
    return bt_failpoint("alloc") < 0 ? NULL : calloc(count, size);
}

static inline __attribute__((warn_unused_result)) void *bt_realloc(void *old, size_t size)
{
    return bt_failpoint("alloc") < 0 ? NULL : realloc(old, size);
}

static inline __attribute__((malloc, warn_unused_result)) char *bt_strdup(const char *text)
{
    return bt_failpoint("alloc") < 0 ? NULL : strdup(text);
}

#endif

/* app/version.c: the version of the library that runs, which may not be that of the headers a module was built with.
 * Knows nothing else. */
#include <baton/version.h>

const char *baton_version(void)
{
    return BATON_VERSION;
}

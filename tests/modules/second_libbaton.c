/* second_libbaton: was linked with a libbaton of its own. */
#include <baton.h>

const char *baton_version(void)
{
    return "0.0.1";
}

BATON_MODULE(0);

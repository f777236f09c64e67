/* no_descriptor: BATON_MODULE was forgotten. */
#include <baton.h>

BATON_API int answer(void);

int answer(void)
{
    return 42;
}

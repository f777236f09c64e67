/* fuzz_elf: any bytes are safe to check, and what passes is safe to search for its build id.
 * Knows nothing of what the loader does with the file. */
#include <proc/elf_check.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[160];
    char build_id[65];
    memset(why, '#', sizeof(why));
    if (bt_elf_check(data, size, why, sizeof(why)) == 0)
        bt_elf_build_id(data, size, build_id, sizeof(build_id));
    else if (!memchr(why, '\0', sizeof(why)) || why[0] == '\0')
        abort();
    return 0;
}

/* proc/elf_check.h: tells whether the loader can map a shared object without touching bytes that are not there.
 * Knows ELF headers only; reads no file and loads nothing. */
#ifndef BT_PROC_ELF_CHECK_H
#define BT_PROC_ELF_CHECK_H

#include <baton/types.h>

/* True when the bytes begin as every ELF file does. */
bool bt_elf_has_magic(const void *image, size_t size);

/* `image` is the whole file. It must be a shared object (ET_DYN, not a program) for this program's class, byte order
 * and machine, with its header tables and all segments inside `size`. Any bytes are safe to give. Returns 0, or
 * -ENOEXEC with a sentence fragment in `why`: "truncated: segment 2 ends at byte 16384, the file has 8192". */
BATON_NODISCARD int bt_elf_check(const void *image, size_t size, char *why, size_t why_size);

/* Writes the GNU build id of an image that passed bt_elf_check in hex, "" when it has none. Returns out. */
const char *bt_elf_build_id(const void *image, size_t size, char *out, size_t out_size);

#endif

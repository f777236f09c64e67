/* base/memory.h: how much memory a process occupies, by the kernel's word. */
#ifndef BT_BASE_MEMORY_H
#define BT_BASE_MEMORY_H

#include <stdint.h>
#include <sys/types.h>

/* Resident bytes of the process; 0 when the kernel does not say (it is gone, or no descriptor is free). Does not block.
 */
uint64_t bt_resident_bytes(pid_t pid);

#endif

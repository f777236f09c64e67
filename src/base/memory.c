/* base/memory.c: reads /proc/PID/statm.
 * Must not know what the number is for. */
#include <base/memory.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t bt_resident_bytes(pid_t pid)
{
    char path[64];
    char text[128];
    snprintf(path, sizeof path, "/proc/%d/statm", (int) pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    const char *blank = strchr(text, ' '); /* the first number is the size of the address space */
    return blank == NULL ? 0 : strtoull(blank, NULL, 10) * (uint64_t) sysconf(_SC_PAGESIZE);
}

/* proc/lock.c: a lock whose holders are all who have inherited its descriptor (flock, not fcntl: that one is not
 * inherited). Must not know what they do. */
#include <base/clock.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <proc/lock.h>
#include <proc/pidfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 1000
#define LOOK_MS     10

static bool is_file(const char *path, const struct stat *file)
{
    struct stat info;
    return stat(path, &info) == 0 && info.st_dev == file->st_dev && info.st_ino == file->st_ino;
}

static bool has_open(const char *pid, const struct stat *file)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    bool found = false;
    for (struct dirent *entry = NULL; fds != NULL && !found && (entry = readdir(fds)) != NULL;) {
        char link[600];
        snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
        found = entry->d_name[0] != '.' && is_file(link, file);
    }
    if (fds != NULL)
        closedir(fds);
    return found;
}

/* " 4711 4712": slow, but only for an error that needs it. */
static void list_holders(int fd, char *out, size_t size)
{
    struct stat file;
    DIR *processes = fstat(fd, &file) < 0 ? NULL : opendir("/proc");
    size_t len = 0;
    out[0] = '\0';
    for (struct dirent *entry = NULL; processes != NULL && (entry = readdir(processes)) != NULL;) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pid != getpid() && len + 16 < size && has_open(entry->d_name, &file))
            len += (size_t) snprintf(out + len, size - len, " %ld", pid);
    }
    if (processes != NULL)
        closedir(processes);
}

static int lock_patiently(int fd)
{
    uint64_t deadline = bt_clock_ms() + PATIENCE_MS;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (bt_clock_ms() > deadline)
            return -EBUSY;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    }
    return 0;
}

int bt_lock_take(const char *path, char *why, size_t size)
{
    int err = bt_make_parent_dirs(path, 0755);
    int fd = err < 0 ? err : open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        snprintf(why, size, "%s: %s", path, strerror(err < 0 ? -err : errno));
        return err < 0 ? err : -errno;
    }
    err = lock_patiently(fd);
    if (err == 0)
        return fd;
    if (err == -EBUSY) {
        char pids[160];
        list_holders(fd, pids, sizeof pids);
        snprintf(why, size, "processes of an earlier master, which has died, serve on: end them with kill%s", pids);
    } else {
        snprintf(why, size, "%s: %s", path, strerror(-err));
    }
    close(fd);
    return err;
}

/* proc/pidfile.c: takes, asks for and releases the pid file's lock.
 * Knows files only; what a running master is asked for is not its task. */
#include <proc/pidfile.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int bt_make_parent_dirs(const char *path, mode_t mode)
{
    char dir[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, path, len + 1);
    for (char *slash = strchr(dir + 1, '/'); len > 0 && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        struct stat status;
        /* Asked first: mkdir of an existing directory can also fail with EROFS or EACCES. */
        if (stat(dir, &status) != 0 && mkdir(dir, mode) != 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return 0;
}

/* The holder's pid by the kernel's word, 0 when nobody holds the lock. */
static pid_t lock_holder(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_GETLK, &lock) != 0)
        return -errno;
    return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

/* Returns 0 with the lock held, -EWOULDBLOCK with the holder's pid, or -ESTALE when it is worth another try. */
static int lock_file(int fd, const char *path, pid_t *holder)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &lock) != 0) {
        if (errno != EACCES && errno != EAGAIN)
            return -errno;
        pid_t pid = lock_holder(fd);
        if (pid == 0)
            return -ESTALE; /* released between the two questions */
        *holder = pid > 0 ? pid : 0;
        return -EWOULDBLOCK;
    }
    /* The last holder may have removed the file between our open and our lock; then this lock is on a file
     * that nobody else will ever find. */
    struct stat ours;
    struct stat named;
    if (fstat(fd, &ours) != 0)
        return -errno;
    if (!S_ISREG(ours.st_mode))
        return -EINVAL;
    if (stat(path, &named) != 0 || named.st_ino != ours.st_ino || named.st_dev != ours.st_dev)
        return -ESTALE;
    return 0;
}

static int write_pid(int fd)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%d\n", (int) getpid());
    /* Cut after writing, so that no reader ever finds the file empty. */
    ssize_t written = pwrite(fd, text, (size_t) len, 0);
    if (written < 0)
        return -errno;
    if (written != len)
        return -ENOSPC;
    return ftruncate(fd, len) == 0 ? 0 : -errno;
}

int bt_pidfile_take(const char *path, pid_t *holder)
{
    *holder = 0;
    int err = bt_make_parent_dirs(path, 0755);
    if (err)
        return err;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return -errno;
        err = lock_file(fd, path, holder);
        if (err == 0)
            err = write_pid(fd);
        if (err == 0)
            return fd;
        close(fd);
        if (err != -ESTALE)
            return err;
    }
}

pid_t bt_pidfile_holder(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC); /* enough for F_GETLK, also for a user who may not write it */
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    pid_t holder = lock_holder(fd);
    close(fd);
    return holder;
}

void bt_pidfile_release(const char *path, int fd)
{
    unlink(path); /* still locked: nobody can have taken it over yet */
    close(fd);
}

char *bt_pidfile_sibling(const char *path, const char *suffix)
{
    size_t len = strlen(path);
    bool has_suffix = len > 4 && strcmp(path + len - 4, ".pid") == 0;
    char *sibling;
    if (asprintf(&sibling, "%.*s%s", (int) (has_suffix ? len - 4 : len), path, suffix) < 0)
        return NULL;
    return sibling;
}

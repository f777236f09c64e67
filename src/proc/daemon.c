/* proc/daemon.c: forks into the background; the process that the shell waits for ends with the daemon's word.
 * Knows nothing of what the daemon does. */
#include <proc/daemon.h>

#include <errno.h>
#include <fcntl.h>
#include <proc/pidfile.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The report is the code as an int32_t, then the text up to the end of the stream. */

static bool read_code(int fd, int32_t *code)
{
    size_t have = 0;
    while (have < sizeof(*code)) {
        ssize_t n = read(fd, (char *) code + have, sizeof(*code) - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        have += (size_t) n;
    }
    return true;
}

/* The original process's remaining life. _exit: its atexit handlers belong to the daemon now, and must not
 * run twice. */
_Noreturn static void wait_for_report(int fd)
{
    int32_t code = 0;
    if (!read_code(fd, &code)) {
        fputs("baton: the daemon ended before it was ready\n", stderr);
        fflush(stderr);
        _exit(1);
    }
    FILE *out = code == 0 ? stdout : stderr;
    char text[4096];
    for (;;) {
        ssize_t n = read(fd, text, sizeof(text));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        fwrite(text, 1, (size_t) n, out);
    }
    fflush(out);
    _exit(code);
}

/* Descriptors 0 to 2 may have been closed by whoever started us; the report must not sit on one of them. */
static int move_above_stdio(int fd)
{
    if (fd > STDERR_FILENO)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int err = -errno;
    close(fd);
    return moved >= 0 ? moved : err;
}

static int null_stdin(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fd == STDIN_FILENO)
        return fcntl(fd, F_SETFD, 0) == 0 ? 0 : -errno;
    int err = dup2(fd, STDIN_FILENO) < 0 ? -errno : 0;
    close(fd);
    return err;
}

/* Runs in the first child: a session of its own, then a second fork so that no terminal can be acquired. */
static int become_daemon(int fd)
{
    if (setsid() < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0)
        _exit(0);
    int err = null_stdin();
    return err ? err : fd;
}

int bt_daemonize(void)
{
    /* A socket pair, not a pipe: the report must not raise SIGPIPE when the original process was killed. */
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return -errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int err = -errno;
        close(ends[0]);
        close(ends[1]);
        return err;
    }
    if (pid > 0) {
        close(ends[1]);
        waitpid(pid, NULL, 0);
        wait_for_report(ends[0]);
    }

    close(ends[0]);
    int fd = move_above_stdio(ends[1]);
    if (fd < 0)
        return fd;
    int err = become_daemon(fd);
    if (err < 0)
        close(fd);
    return err;
}

static bool send_all(int fd, const void *data, size_t len)
{
    const char *bytes = data;
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes += n;
        len -= (size_t) n;
    }
    return true;
}

void bt_daemon_report(int fd, int code, const char *text)
{
    int32_t wire = code;
    if (send_all(fd, &wire, sizeof(wire)))
        (void) send_all(fd, text, strlen(text)); /* nobody left to tell */
    close(fd);
}

int bt_redirect_output(const char *path)
{
    int err = path ? bt_make_parent_dirs(path, 0755) : 0;
    if (err)
        return err;
    fflush(stdout);
    fflush(stderr);
    int fd = open(path ? path : "/dev/null", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        err = -errno;
    if (fd > STDERR_FILENO)
        close(fd);
    else
        fcntl(fd, F_SETFD, 0);
    return err;
}

int bt_open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

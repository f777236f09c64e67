/* net/listener.c: makes listening sockets, TCP and unix, and reaches unix sockets by any path.
 * Knows addresses and the kernel's options; not who accepts or what is spoken. */
#include <net/listener.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SUN_PATH_MAX = sizeof(((struct sockaddr_un *) 0)->sun_path) - 1,
    KEEPALIVE_IDLE_S = 55, /* below the 60 s after which many NATs and balancers forget a silent connection */
    KEEPALIVE_INTERVAL_S = 15,
    KEEPALIVE_PROBES = 4,
    SERVICE_SOCKET_MODE = 0666,
};

static int fail(int err, char *why, size_t why_size, const char *name)
{
    snprintf(why, why_size, "cannot listen on %s: %s", name, strerror(-err));
    return err;
}

/* ---- unix ---- */

/* A socket address for a path of any length. For a long one `dir_fd` receives the descriptor of its directory,
 * which must stay open while the address is used; otherwise -1. */
static int unix_address(const char *path, struct sockaddr_un *out, int *dir_fd)
{
    *dir_fd = -1;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0)
        return -EINVAL;
    if (len <= SUN_PATH_MAX) {
        memcpy(out->sun_path, path, len + 1);
        return 0;
    }

    const char *slash = strrchr(path, '/');
    char dir[PATH_MAX];
    if (!slash || (size_t) (slash - path) + 2 > sizeof(dir))
        return -ENAMETOOLONG;
    snprintf(dir, sizeof(dir), "%.*s/", (int) (slash - path), path);
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int wanted = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", fd, slash + 1);
    if (wanted > SUN_PATH_MAX) {
        close(fd);
        return -ENAMETOOLONG;
    }
    *dir_fd = fd;
    return 0;
}

/* Clears the way for a bind. Only a socket that refuses connections is removed: nobody listens on it. A full
 * backlog (EAGAIN) or a missing permission shows somebody who does. */
static int remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = connect(fd, (const struct sockaddr *) address, sizeof(*address)) == 0 ? 0 : errno;
    close(fd);
    if (err != ECONNREFUSED)
        return err == ENOENT ? 0 : -EADDRINUSE;
    return unlink(address->sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Returns a bound, listening descriptor or a negative errno. */
static int listen_at(const struct sockaddr_un *address, int backlog, unsigned mode)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* A chmod after bind would leave a moment in which anybody may connect. */
    mode_t old_umask = umask((mode_t) (0777 & ~mode));
    int bound = bind(fd, (const struct sockaddr *) address, sizeof(*address));
    int err = errno;
    umask(old_umask);
    if (bound == 0 && listen(fd, backlog) == 0)
        return fd;
    if (bound == 0) {
        err = errno;
        unlink(address->sun_path);
    }
    close(fd);
    return -err;
}

int bt_unix_listen(const char *path, int backlog, unsigned mode, char *why, size_t why_size)
{
    struct sockaddr_un address;
    int dir_fd = -1;
    int fd = unix_address(path, &address, &dir_fd);
    if (fd == 0)
        fd = remove_stale_socket(&address);
    if (fd == 0)
        fd = listen_at(&address, backlog, mode);
    if (dir_fd >= 0)
        close(dir_fd);
    return fd >= 0 ? fd : fail(fd, why, why_size, path);
}

int bt_unix_connect(const char *path)
{
    struct sockaddr_un address;
    int dir_fd = -1;
    int err = unix_address(path, &address, &dir_fd);
    if (err)
        return err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        err = -errno;
    } else {
        int result;
        do {
            result = connect(fd, (const struct sockaddr *) &address, sizeof(address));
        } while (result != 0 && errno == EINTR);
        if (result != 0) {
            err = -errno;
            close(fd);
        }
    }
    if (dir_fd >= 0)
        close(dir_fd);
    return err ? err : fd;
}

/* ---- tcp ---- */

static int set_options(int fd, const struct sockaddr_storage *address, bool dual_stack, bool reuse_port)
{
    const struct {
        bool wanted;
        int level;
        int option;
        int value;
    } options[] = {
        {true, SOL_SOCKET, SO_REUSEADDR, 1},
        {reuse_port, SOL_SOCKET, SO_REUSEPORT, 1},
        /* Explicit both ways: net.ipv6.bindv6only decides otherwise. */
        {address->ss_family == AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, !dual_stack},
        {true, IPPROTO_TCP, TCP_NODELAY, 1},
        {true, SOL_SOCKET, SO_KEEPALIVE, 1},
        {true, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {true, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {true, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        if (options[i].wanted &&
            setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof(int)) != 0)
            return -errno;
    }
    return 0;
}

static int open_tcp(struct sockaddr_storage *address, socklen_t len, bool dual_stack, int backlog, bool reuse_port)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = set_options(fd, address, dual_stack, reuse_port);
    if (err == 0 && (bind(fd, (struct sockaddr *) address, len) != 0 || listen(fd, backlog) != 0))
        err = -errno;
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

int bt_listener_open(const bt_listen_address *address, int backlog, bool reuse_port, char *why, size_t why_size)
{
    if (address->is_unix)
        return bt_unix_listen(address->path, backlog, SERVICE_SOCKET_MODE, why, why_size);

    struct sockaddr_storage resolved;
    socklen_t len = 0;
    int fd = bt_listen_address_resolve(address, &resolved, &len, why, why_size);
    if (fd < 0)
        return fd;
    fd = open_tcp(&resolved, len, address->dual_stack, backlog, reuse_port);
    if (fd == -EAFNOSUPPORT && address->dual_stack) {
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(address->port)};
        memset(&resolved, 0, sizeof(resolved));
        memcpy(&resolved, &any, sizeof(any));
        fd = open_tcp(&resolved, sizeof(any), false, backlog, reuse_port);
    }
    if (fd >= 0)
        return fd;

    char name[sizeof(address->host) + 16];
    bool is_v6 = strchr(address->host, ':') != NULL;
    snprintf(name, sizeof(name), is_v6 ? "[%s]:%u" : "%s:%u", address->host, (unsigned) address->port);
    return fail(fd, why, why_size, name);
}

const char *bt_listener_name(int fd, char *out, size_t size)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (getsockname(fd, (struct sockaddr *) &address, &len) != 0) {
        snprintf(out, size, "unknown");
        return out;
    }
    if (address.ss_family != AF_UNIX) {
        bt_address compact;
        bt_address_from_sockaddr(&compact, (const struct sockaddr *) &address, len);
        return bt_address_format(&compact, out, size);
    }

    struct sockaddr_un un;
    memcpy(&un, &address, sizeof(un));
    char path[sizeof(un.sun_path) + 1] = "";
    size_t path_len = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
    memcpy(path, un.sun_path, path_len < sizeof(un.sun_path) ? path_len : sizeof(un.sun_path));
    /* The descriptor in the path that a long one was bound by means nothing to a reader. */
    bool is_long = strncmp(path, "/proc/self/fd/", strlen("/proc/self/fd/")) == 0;
    const char *last = strrchr(path, '/');
    snprintf(out, size, "unix:%s%s", is_long ? "..." : "", is_long ? last : path);
    return out;
}

/* net/listener.h: listening sockets, made by the master and polled by processes.
 * Knows addresses and the kernel's options; not who accepts or what is spoken. */
#ifndef BT_NET_LISTENER_H
#define BT_NET_LISTENER_H

#include <net/address.h>

/* Creates, binds and listens. Non-blocking, close-on-exec, SO_REUSEADDR; for TCP also TCP_NODELAY and
 * SO_KEEPALIVE with 55 s, which accepted sockets inherit. `reuse_port` sets SO_REUSEPORT.
 * A unix socket: a stale file (nobody listens: connect gives ECONNREFUSED) is removed first, a live one
 * is -EADDRINUSE; anything else at that path is left alone: -EEXIST. Everybody may connect (mode 0666).
 * Paths over 107 bytes are bound through /proc/self/fd/DIR. "*" is IPv4 only on a kernel without IPv6.
 * Returns the descriptor or a negative errno with a sentence in `why`. */
BATON_NODISCARD int bt_listener_open(const bt_listen_address *address, int backlog, bool reuse_port, char *why,
                                     size_t why_size);

/* Binds any unix stream socket at `path` the same way, with permission `mode` from the first moment
 * (fchmod before bind does not work on Linux: uses umask around bind). For the control socket. */
BATON_NODISCARD int bt_unix_listen(const char *path, int backlog, unsigned mode, char *why, size_t why_size);

/* Connects (blocking, close-on-exec) to a unix stream socket of any path length. Descriptor or -errno. */
BATON_NODISCARD int bt_unix_connect(const char *path);

/* Writes the address the socket is really bound to ("127.0.0.1:41234", "unix:/run/a.sock", "unix:.../a.sock" when
 * the path was over 107 bytes). Returns out. */
const char *bt_listener_name(int fd, char *out, size_t size);

#endif

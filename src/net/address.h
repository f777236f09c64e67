/* net/address.h: listen addresses as people write them, and peers as the kernel gives them.
 * Knows the address families, not the sockets. */
#ifndef BT_NET_ADDRESS_H
#define BT_NET_ADDRESS_H

#include <baton/types.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Compact peer address: what a connection keeps (unix peers are unnamed). 20 bytes. */
typedef struct bt_address {
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX, or AF_UNSPEC when unknown */
    uint8_t pad;
    uint16_t port; /* host order */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } ip;
} bt_address;

/* A listen address: "http://127.0.0.1:80", "text://[::]:9000", "tcp:" with host "*" (all IPv4 and IPv6),
 * "http://localhost:8080" (names are resolved once, when first listened on), "unix:///run/a.sock" (raw),
 * "http+unix:///run/a.sock" (a protocol over a Unix socket; relative paths with two slashes:
 * "http+unix://run/a.sock"). The scheme is stored in lower case. */
typedef struct bt_listen_address {
    char scheme[32]; /* protocol part: "http", "tcp", "text", ...; "tcp" for a bare unix:// */
    bool is_unix;
    bool dual_stack; /* "*": an IPv6 socket that also takes IPv4 */
    uint16_t port;
    char host[256];    /* as written, without brackets; "" for unix */
    char resolved[46]; /* the number of a name that has been looked up already; "" */
    char path[256];    /* unix only */
} bt_listen_address;

/* Parses `text`. On failure returns -EINVAL and writes one sentence fragment into `why`
 * ("port 70000 is not from 0 to 65535"). */
BATON_NODISCARD int bt_listen_address_parse(const char *text, bt_listen_address *out, char *why, size_t why_size);

/* True when listening there needs a name lookup, which may block. */
bool bt_listen_address_is_name(const bt_listen_address *address);

/* Turns a non-unix listen address into a socket address; blocking name lookup, unless
 * it is `resolved`. "*" gives [::]; a name with addresses of both families its IPv4 one. Returns 0 or a negative errno
 * with words in `why`. */
BATON_NODISCARD int bt_listen_address_resolve(const bt_listen_address *address, struct sockaddr_storage *out,
                                              socklen_t *out_len, char *why, size_t why_size);

/* IPv4-mapped IPv6 peers become IPv4. */
void bt_address_from_sockaddr(bt_address *out, const struct sockaddr *addr, socklen_t len);

/* "127.0.0.1:80", "[::1]:80", "unix:", "unknown". Returns out. */
const char *bt_address_format(const bt_address *address, char *out, size_t size);

#endif

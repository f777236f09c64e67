/* net/address.c: parses listen addresses, resolves them, and formats peers.
 * Knows the address families, not the sockets, nor which schemes exist. */
#include <net/address.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

static const char lower[] = "abcdefghijklmnopqrstuvwxyz";
static const char host_bytes[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
static const char digits[] = "0123456789";

/* "http" and "http+unix" in any case, up to the "://". Sets is_unix. */
static int parse_scheme(const char *text, size_t len, bt_listen_address *out, char *why, size_t why_size)
{
    char scheme[sizeof(out->scheme)] = "";
    if (len >= sizeof(scheme)) {
        snprintf(why, why_size, "the scheme is longer than %zu bytes", sizeof(scheme) - 1);
        return -EINVAL;
    }
    for (size_t i = 0; i < len; i++)
        scheme[i] = (char) (text[i] >= 'A' && text[i] <= 'Z' ? text[i] + ('a' - 'A') : text[i]);

    char *transport = strchr(scheme, '+');
    if (transport) {
        if (strcmp(transport, "+unix") != 0) {
            snprintf(why, why_size, "scheme \"%s\": only \"+unix\" can follow a protocol", scheme);
            return -EINVAL;
        }
        *transport = '\0';
        out->is_unix = true;
    } else if (strcmp(scheme, "unix") == 0) {
        out->is_unix = true;
        memcpy(scheme, "tcp", sizeof("tcp"));
    }

    size_t rest = strspn(scheme, lower);
    if (rest > 0)
        rest += strspn(scheme + rest, "abcdefghijklmnopqrstuvwxyz0123456789.-_");
    if (rest == 0 || scheme[rest] != '\0' || strcmp(scheme, "unix") == 0) {
        snprintf(why, why_size, "\"%s\" is not a scheme like \"http\" or \"tcp\"", scheme);
        return -EINVAL;
    }
    memcpy(out->scheme, scheme, sizeof(scheme));
    return 0;
}

static int parse_path(const char *text, bt_listen_address *out, char *why, size_t why_size)
{
    size_t len = strlen(text);
    if (len == 0 || text[len - 1] == '/') {
        snprintf(why, why_size, "the socket's path is missing");
        return -EINVAL;
    }
    if (len >= sizeof(out->path)) {
        snprintf(why, why_size, "the socket's path is longer than %zu bytes", sizeof(out->path) - 1);
        return -EINVAL;
    }
    memcpy(out->path, text, len + 1);
    return 0;
}

static int parse_port(const char *text, bt_listen_address *out, char *why, size_t why_size)
{
    size_t len = strspn(text, digits);
    if (len == 0 || text[len] != '\0') {
        snprintf(why, why_size, "port \"%s\" is not a number", text);
        return -EINVAL;
    }
    unsigned port = 0;
    for (size_t i = 0; i < len && port <= 65535; i++)
        port = port * 10 + (unsigned) (text[i] - '0');
    if (port > 65535) {
        snprintf(why, why_size, "port %s is not from 0 to 65535", text);
        return -EINVAL;
    }
    out->port = (uint16_t) port;
    return 0;
}

/* What stood in brackets; a zone ("fe80::1%eth0") is left to the resolver. */
static bool is_ipv6(const char *host)
{
    char bare[INET6_ADDRSTRLEN] = "";
    size_t len = strcspn(host, "%");
    if (len >= sizeof(bare))
        return false;
    memcpy(bare, host, len);
    struct in6_addr ignored;
    return inet_pton(AF_INET6, bare, &ignored) == 1;
}

static int check_host(const char *host, bool in_brackets, char *why, size_t why_size)
{
    struct in_addr ignored;
    const char *problem = NULL;
    if (in_brackets)
        problem = is_ipv6(host) ? NULL : "is not an IPv6 address";
    else if (strchr(host, ':'))
        problem = "needs brackets if it is an IPv6 address";
    else if (strcmp(host, "*") == 0)
        problem = NULL;
    else if (host[strspn(host, host_bytes)] != '\0')
        problem = "holds a character that no host name has";
    else if (host[strspn(host, "0123456789.")] == '\0' && inet_pton(AF_INET, host, &ignored) != 1)
        problem = "is not an IPv4 address";
    if (!problem)
        return 0;
    snprintf(why, why_size, "host \"%s\" %s", host, problem);
    return -EINVAL;
}

static int parse_host_and_port(const char *text, bt_listen_address *out, char *why, size_t why_size)
{
    bool in_brackets = text[0] == '[';
    const char *host = in_brackets ? text + 1 : text;
    const char *host_end = in_brackets ? strchr(host, ']') : strrchr(host, ':');
    const char *colon = host_end && in_brackets ? host_end + 1 : host_end;
    if (!colon || *colon != ':') {
        snprintf(why, why_size, "\"%s\" has no port", text);
        return -EINVAL;
    }
    size_t len = (size_t) (host_end - host);
    if (len == 0) {
        snprintf(why, why_size, "the host is missing (\"*\" means all addresses)");
        return -EINVAL;
    }
    if (len >= sizeof(out->host)) {
        snprintf(why, why_size, "the host is longer than %zu bytes", sizeof(out->host) - 1);
        return -EINVAL;
    }
    memcpy(out->host, host, len);
    out->host[len] = '\0';
    out->dual_stack = strcmp(out->host, "*") == 0;
    int err = check_host(out->host, in_brackets, why, why_size);
    return err ? err : parse_port(colon + 1, out, why, why_size);
}

static bool has_control_byte(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char) *text < 0x20 || *text == 0x7f)
            return true;
    }
    return false;
}

int bt_listen_address_parse(const char *text, bt_listen_address *out, char *why, size_t why_size)
{
    *out = (bt_listen_address){0};
    if (has_control_byte(text)) {
        snprintf(why, why_size, "the address holds a control character");
        return -EINVAL;
    }
    const char *mark = strstr(text, "://");
    if (!mark) {
        snprintf(why, why_size, "\"%s\" is not of the form scheme://host:port", text);
        return -EINVAL;
    }
    int err = parse_scheme(text, (size_t) (mark - text), out, why, why_size);
    if (err)
        return err;
    const char *rest = mark + strlen("://");
    return out->is_unix ? parse_path(rest, out, why, why_size) : parse_host_and_port(rest, out, why, why_size);
}

bool bt_listen_address_is_name(const bt_listen_address *address)
{
    struct in_addr ignored;
    return !address->is_unix && !address->dual_stack && inet_pton(AF_INET, address->host, &ignored) != 1 &&
           !is_ipv6(address->host);
}

static int errno_of_lookup(int gai_error)
{
    if (gai_error == EAI_SYSTEM)
        return errno ? -errno : -EIO;
    if (gai_error == EAI_MEMORY)
        return -ENOMEM;
    return gai_error == EAI_AGAIN ? -EAGAIN : -EADDRNOTAVAIL;
}

int bt_listen_address_resolve(const bt_listen_address *address, struct sockaddr_storage *out, socklen_t *out_len,
                              char *why, size_t why_size)
{
    char port[8];
    snprintf(port, sizeof(port), "%u", (unsigned) address->port);
    const char *host = address->dual_stack ? "::" : address->host;
    if (address->resolved[0] != '\0')
        host = address->resolved;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        int err = errno_of_lookup(error);
        snprintf(why, why_size, "host \"%s\": %s", host, error == EAI_SYSTEM ? strerror(-err) : gai_strerror(error));
        return err;
    }

    /* One address is listened on. For a name with both, IPv4 is what clients of "localhost" fall back to. */
    const struct addrinfo *chosen = found;
    for (const struct addrinfo *one = found->ai_next; one && chosen->ai_family != AF_INET; one = one->ai_next) {
        if (one->ai_family == AF_INET)
            chosen = one;
    }
    memset(out, 0, sizeof(*out));
    memcpy(out, chosen->ai_addr, chosen->ai_addrlen);
    *out_len = chosen->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

void bt_address_from_sockaddr(bt_address *out, const struct sockaddr *addr, socklen_t len)
{
    *out = (bt_address){.family = AF_UNSPEC};
    if (len < (socklen_t) sizeof(addr->sa_family))
        return;
    if (addr->sa_family == AF_UNIX) {
        out->family = AF_UNIX;
    } else if (addr->sa_family == AF_INET && len >= (socklen_t) sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, addr, sizeof(in));
        out->family = AF_INET;
        out->port = ntohs(in.sin_port);
        out->ip.v4 = in.sin_addr;
    } else if (addr->sa_family == AF_INET6 && len >= (socklen_t) sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, addr, sizeof(in6));
        out->port = ntohs(in6.sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
            out->family = AF_INET;
            memcpy(&out->ip.v4, &in6.sin6_addr.s6_addr[12], sizeof(out->ip.v4));
        } else {
            out->family = AF_INET6;
            out->ip.v6 = in6.sin6_addr;
        }
    }
}

const char *bt_address_format(const bt_address *address, char *out, size_t size)
{
    char ip[INET6_ADDRSTRLEN];
    if (address->family == AF_UNIX)
        snprintf(out, size, "unix:");
    else if (address->family == AF_INET && inet_ntop(AF_INET, &address->ip.v4, ip, sizeof(ip)))
        snprintf(out, size, "%s:%u", ip, (unsigned) address->port);
    else if (address->family == AF_INET6 && inet_ntop(AF_INET6, &address->ip.v6, ip, sizeof(ip)))
        snprintf(out, size, "[%s]:%u", ip, (unsigned) address->port);
    else
        snprintf(out, size, "unknown");
    return out;
}

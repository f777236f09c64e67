/* floor.c: the least a server can do, to compare against: recv, memmem, send. One process, epoll.
 * Knows nothing of HTTP but the empty line that ends a request without a body. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* As long as a real server's, Date included. */
static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 2\r\n"
                             "\r\n"
                             "hi";

enum {
    ANSWER_LEN = sizeof(answer) - 1,
    INPUT = 65536,
    ANSWERS_MAX = INPUT / 4,
    FDS = 65536,
    EVENTS = 256,
    TAIL = 3, /* of "\r\n\r\n" can end one read; the rest begins the next */
};

static struct tail {
    char bytes[TAIL];
    unsigned char len;
} tails[FDS];

static char input[TAIL + INPUT], output[(size_t) ANSWERS_MAX * ANSWER_LEN];

/* Answers every empty line in the buffer with one send. Returns false when the connection is over. */
static int serve(int fd)
{
    struct tail *tail = &tails[fd];
    memcpy(input, tail->bytes, tail->len);
    ssize_t got = recv(fd, input + tail->len, INPUT, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;

    const char *at = input, *end = input + tail->len + got, *stop;
    size_t len = 0;
    while ((stop = memmem(at, (size_t) (end - at), "\r\n\r\n", 4)) != NULL) {
        memcpy(output + len, answer, ANSWER_LEN);
        len += ANSWER_LEN;
        at = stop + 4;
    }
    size_t left = (size_t) (end - at);
    tail->len = (unsigned char) (left < TAIL ? left : TAIL);
    memcpy(tail->bytes, end - tail->len, tail->len);
    return len == 0 || send(fd, output, len, MSG_NOSIGNAL) == (ssize_t) len;
}

static void accept_one(int listener, int loop)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= FDS) {
        close(fd);
        return;
    }
    tails[fd].len = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t len = sizeof(address);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *) &address, len) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *) &address, &len) < 0) {
        perror("floor");
        exit(1);
    }
    printf("port=%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"port", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    long port = -1;
    int choice;
    char *rest = argv[0];

    while ((choice = getopt_long(argc, argv, "", longs, NULL)) != -1)
        port = choice == 'p' ? strtol(optarg, &rest, 10) : -1;
    if (port < 0 || port > 65535 || *rest != '\0' || optind < argc) {
        fputs("Usage: floor --port PORT   (0: any; prints port=PORT)\n", stderr);
        return 2;
    }
    int listener = listen_on((uint16_t) port), loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_one(listener, loop);
            else if (!serve(fd))
                close(fd);
        }
    }
}

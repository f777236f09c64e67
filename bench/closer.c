/* closer.c: a server that ends its connections as servers do on a reload, to prove that storm notices.
 * Knows nothing of HTTP but the empty line that ends a request without a body; serves at most 1,024 descriptors. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS = 1024, EVENTS = 64 };

enum ending { FIN, RST, TOLD, ENDINGS };

static const char *const ending_names[ENDINGS] = {"fin", "rst", "told"};

static const char keep_answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
static const char last_answer[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

struct server {
    int listener, loop, signals;
    int is_open[FDS];
    int will_end[FDS]; /* after the next answer */
    enum ending ending;
    int answers_first; /* a connection ends after its next answer, not while idle */
};

static void end(struct server *server, int fd)
{
    /* Closing with a zero linger time sends RST. */
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (server->ending == RST)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    server->is_open[fd] = server->will_end[fd] = 0;
    close(fd);
}

static void serve(struct server *server, int fd)
{
    char input[65536];
    ssize_t got = recv(fd, input, sizeof(input), 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        server->is_open[fd] = server->will_end[fd] = 0;
        close(fd);
        return;
    }
    const char *text = server->will_end[fd] && server->ending == TOLD ? last_answer : keep_answer;
    const char *at = input, *stop;
    while ((stop = memmem(at, (size_t) (input + got - at), "\r\n\r\n", 4)) != NULL) {
        if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
            break;
        at = stop + 4;
    }
    if (server->will_end[fd])
        end(server, fd);
}

static void accept_one(struct server *server)
{
    int on = 1, fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || fd >= FDS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(server->loop, EPOLL_CTL_ADD, fd, &event);
    server->is_open[fd] = 1;
}

static void usr1(struct server *server)
{
    struct signalfd_siginfo info;
    if (read(server->signals, &info, sizeof(info)) < 0)
        return;
    for (int fd = 0; fd < FDS; fd++) {
        if (!server->is_open[fd])
            continue;
        if (server->answers_first)
            server->will_end[fd] = 1;
        else
            end(server, fd);
    }
    puts("ended"); /* for whoever waits for it */
    fflush(stdout);
}

static void watch(struct server *server, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0 || epoll_ctl(server->loop, EPOLL_CTL_ADD, fd, &event) < 0) {
        perror("closer");
        exit(1);
    }
}

static void open_all(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    sigset_t set;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->loop = epoll_create1(EPOLL_CLOEXEC);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(server->listener, (struct sockaddr *) &address, len) < 0 || listen(server->listener, 1024) < 0 ||
        getsockname(server->listener, (struct sockaddr *) &address, &len) < 0) {
        perror("closer");
        exit(1);
    }
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    watch(server, server->listener);
    watch(server, server->signals);
    printf("port=%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static int parse(struct server *server, int argc, char **argv)
{
    static const struct option longs[] = {
        {"on-usr1", required_argument, NULL, 'u'}, {"answer-first", no_argument, NULL, 'a'}, {NULL, 0, NULL, 0}};
    int choice;
    while ((choice = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (choice == 'a')
            server->answers_first = 1;
        else if (choice != 'u')
            return 0;
        for (int i = 0; choice == 'u'; i++) {
            if (i == ENDINGS)
                return 0;
            server->ending = (enum ending) i;
            if (strcmp(optarg, ending_names[i]) == 0)
                break;
        }
    }
    /* Being told needs an answer to be told in. */
    return optind == argc && (server->ending != TOLD || server->answers_first);
}

int main(int argc, char **argv)
{
    static struct server server;
    struct epoll_event events[EVENTS];

    if (!parse(&server, argc, argv)) {
        fputs("Usage: closer [--on-usr1 fin|rst|told] [--answer-first]\n"
              "Prints port=PORT. At SIGUSR1 it ends every connection: at once, or after its next answer.\n",
              stderr);
        return 2;
    }
    open_all(&server);
    for (;;) {
        int count = epoll_wait(server.loop, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == server.signals)
                usr1(&server);
            else if (fd == server.listener)
                accept_one(&server);
            else if (server.is_open[fd])
                serve(&server, fd);
        }
    }
}

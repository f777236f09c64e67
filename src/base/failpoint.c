/* base/failpoint.c: does at a named point what a file says. Knows the files, not the points.
 * Only part of builds with -Dfailpoints=true. */
#include <base/failpoint.h>

#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_POINTS = 16, MAX_PATH = 512, MAX_TEXT = 256, ERRNO_LIMIT = 200 };

typedef enum action_kind {
    ACTION_NONE,
    ACTION_KILL,
    ACTION_STOP,
    ACTION_ABORT,
    ACTION_EXIT,
    ACTION_PAUSE,
    ACTION_FAIL,
} action_kind;

typedef struct point_order {
    action_kind kind;
    long value; /* exit code, milliseconds, errno */
    long count;
    long after;
    long every; /* 0: the order is taken by one process */
    char role[64];
    long pid;
} point_order;

/* What this process has taken, or counts. Remembered by the process, because a point has no object to hang it on. */
typedef struct known_point {
    char name[64];
    bool is_taken;
    point_order order;
    long passes;
} known_point;

static struct {
    pid_t owner; /* a child starts with its parent's table, which is none of its business */
    known_point points[MAX_POINTS];
} memory;

static void complain(const char *name, const char *what)
{
    bt_log(BT_LOG_ERROR, "failpoint name=%s problem=\"%s\"", name, what);
    abort(); /* a mistake of the test, which must not pass for a success */
}

/* A process that has used up its descriptors is a thing to test, too: its standard input, which is /dev/null, gives way
 * for a moment. */
static int open_anyway(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EMFILE)
        return fd;
    close(STDIN_FILENO);
    fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0 && open("/dev/null", O_RDONLY) != STDIN_FILENO)
        complain(path, "standard input is lost");
    return fd;
}

static void close_again(int fd)
{
    close(fd);
    if (fd == STDIN_FILENO && open("/dev/null", O_RDONLY) != STDIN_FILENO)
        complain("", "standard input is lost");
}

/* The number behind "WORD "; false when the line is something else. */
static bool number_after(const char *line, const char *word, long *out)
{
    size_t len = strlen(word);
    if (strncmp(line, word, len) != 0 || line[len] != ' ')
        return false;
    char *end;
    *out = strtol(line + len + 1, &end, 10);
    return end != line + len + 1 && *end == '\0';
}

static long errno_of(const char *word)
{
    for (int number = 1; number < ERRNO_LIMIT; number++) {
        const char *name = strerrorname_np(number);
        if (name != NULL && strcmp(name, word) == 0)
            return number;
    }
    return strtol(word, NULL, 10);
}

/* "ERRNO" or "ERRNO COUNT" */
static bool parse_failure(char *text, point_order *out)
{
    char *count = NULL;
    const char *word = strtok_r(text, " ", &count);
    out->kind = ACTION_FAIL;
    out->value = word == NULL ? 0 : errno_of(word);
    out->count = *count == '\0' ? 1 : strtol(count, NULL, 10);
    return out->value > 0 && out->count > 0;
}

static bool parse_action(char *line, point_order *out)
{
    static const struct {
        const char *word;
        action_kind kind;
    } plain[] = {{"kill", ACTION_KILL}, {"stop", ACTION_STOP}, {"abort", ACTION_ABORT}};
    out->count = 1;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(line, plain[i].word) == 0) {
            out->kind = plain[i].kind;
            return true;
        }
    }
    if (strncmp(line, "fail ", 5) == 0)
        return parse_failure(line + 5, out);
    if (number_after(line, "exit", &out->value))
        out->kind = ACTION_EXIT;
    else if (number_after(line, "pause", &out->value))
        out->kind = ACTION_PAUSE;
    return out->kind != ACTION_NONE;
}

static bool parse_condition(const char *line, point_order *out)
{
    if (strncmp(line, "role ", 5) == 0) {
        snprintf(out->role, sizeof out->role, "%s", line + 5);
        return true;
    }
    return number_after(line, "after", &out->after) || number_after(line, "every", &out->every) ||
           number_after(line, "pid", &out->pid);
}

static bool parse_order(char *text, point_order *out)
{
    char *rest = NULL;
    memset(out, 0, sizeof *out);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (!parse_condition(line, out) && !parse_action(line, out))
            return false;
    }
    return out->kind != ACTION_NONE;
}

static const char *path_of(char *out, const char *name, const char *suffix, bool with_pid)
{
    char pid[24] = "";
    if (with_pid)
        snprintf(pid, sizeof pid, ".%d", (int) getpid());
    snprintf(out, MAX_PATH, "%s/%s%s%s", getenv("BATON_FAILPOINTS"), name, suffix, pid);
    return out;
}

/* False when there is none (any more). */
static bool read_order(const char *path, const char *name, point_order *out)
{
    char text[MAX_TEXT];
    int fd = open_anyway(path, O_RDONLY);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, text, sizeof text - 1);
    close_again(fd);
    text[len < 0 ? 0 : len] = '\0';
    if (!parse_order(text, out))
        complain(name, "it holds no action");
    return true;
}

static bool is_for_me(const point_order *order)
{
    return (order->pid == 0 || order->pid == getpid()) &&
           (order->role[0] == '\0' || strcmp(order->role, bt_log_role()) == 0);
}

static known_point *point_find(const char *name)
{
    if (memory.owner != getpid()) {
        memset(&memory, 0, sizeof memory);
        memory.owner = getpid();
    }
    for (size_t i = 0; i < MAX_POINTS && memory.points[i].name[0] != '\0'; i++) {
        if (strcmp(memory.points[i].name, name) == 0)
            return &memory.points[i];
    }
    return NULL;
}

static known_point *point_add(const char *name)
{
    for (size_t i = 0; i < MAX_POINTS; i++) {
        known_point *point = &memory.points[i];
        if (point->name[0] != '\0')
            continue;
        snprintf(point->name, sizeof point->name, "%s", name);
        return point;
    }
    complain(name, "too many points");
    return NULL;
}

/* The order that is to be counted in this process; NULL when there is none. Taking one is a rename, so that exactly one
 * process succeeds, and what counts is what was renamed. */
static known_point *look(const char *name, known_point *known)
{
    char path[MAX_PATH];
    char taken[MAX_PATH];
    point_order order;
    path_of(path, name, "", false);
    if (access(path, F_OK) != 0 || !read_order(path, name, &order) || !is_for_me(&order))
        return NULL;
    if (order.every == 0) {
        path_of(taken, name, ".taken", true);
        if (rename(path, taken) != 0 || !read_order(taken, name, &order))
            return NULL;
    }
    known_point *point = known != NULL ? known : point_add(name);
    point->order = order;
    point->is_taken = order.every == 0;
    if (point->is_taken)
        point->passes = 0;
    return point;
}

/* False when the order was withdrawn meanwhile. */
static bool announce(const char *name)
{
    char taken[MAX_PATH];
    char acted[MAX_PATH];
    return rename(path_of(taken, name, ".taken", true), path_of(acted, name, ".acted", true)) == 0;
}

/* Of an order that nobody takes. */
static void announce_every(const char *name)
{
    char acted[MAX_PATH];
    int fd = open_anyway(path_of(acted, name, ".acted", true), O_WRONLY | O_CREAT);
    if (fd >= 0)
        close_again(fd);
}

static void pause_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

static int act(const point_order *order)
{
    switch (order->kind) {
    case ACTION_NONE:
        break;
    case ACTION_KILL:
        kill(getpid(), SIGKILL);
        break;
    case ACTION_STOP:
        raise(SIGSTOP);
        break;
    case ACTION_ABORT:
        abort();
    case ACTION_EXIT:
        _exit((int) order->value);
    case ACTION_PAUSE:
        pause_ms(order->value);
        break;
    case ACTION_FAIL:
        return (int) -order->value;
    }
    return 0;
}

/* Has not begun, and its file has been removed. */
static bool has_been_withdrawn(const known_point *point)
{
    char taken[MAX_PATH];
    return point->is_taken && point->passes <= point->order.after &&
           access(path_of(taken, point->name, ".taken", true), F_OK) != 0;
}

static int pass(const char *name)
{
    known_point *point = point_find(name);
    if (point != NULL && has_been_withdrawn(point))
        point->is_taken = false;
    if (point == NULL || !point->is_taken)
        point = look(name, point);
    if (point == NULL)
        return 0;
    point->passes++;
    if (point->order.every > 0) {
        if (point->passes % point->order.every != 0)
            return 0;
        announce_every(name);
        return act(&point->order);
    }
    if (point->passes <= point->order.after)
        return 0;
    bool is_withdrawn = point->passes == point->order.after + 1 && !announce(name);
    if (is_withdrawn || point->passes >= point->order.after + point->order.count)
        point->is_taken = false;
    return is_withdrawn ? 0 : act(&point->order);
}

int bt_failpoint(const char *name)
{
    if (getenv("BATON_FAILPOINTS") == NULL)
        return 0;
    int saved_errno = errno;
    int result = pass(name);
    errno = saved_errno;
    return result;
}

void bt_pass_log(unsigned long long id, const char *event)
{
    const char *path = getenv("BATON_PASS_LOG");
    if (path == NULL)
        return;
    int saved_errno = errno;
    char line[96];
    int len = snprintf(line, sizeof line, "%d %llu %s\n", (int) getpid(), id, event);
    int fd = open_anyway(path, O_WRONLY | O_APPEND | O_CREAT);
    if (fd < 0 || write(fd, line, (size_t) len) != len)
        complain(event, "the log of the passes cannot be written");
    close_again(fd);
    errno = saved_errno;
}

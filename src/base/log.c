/* base/log.c: builds one log line and hands it to the kernel in one write, so that lines of several
 * processes never mix. Knows nothing of what is logged. */
#include <base/log.h>

#include <assert.h>
#include <base/clock.h>
#include <baton/log.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static_assert((int) BATON_LOG_ERROR == (int) BT_LOG_ERROR && (int) BATON_LOG_DEBUG == (int) BT_LOG_DEBUG,
              "the levels of the public header are ours");

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* The one process-wide object of the library (see log.h). */
static struct {
    int fd;
    bt_log_level least;
    char role[64];
    bt_log_tail *tail;
} log_state = {.fd = STDERR_FILENO, .least = BT_LOG_INFO, .role = "baton"};

void bt_log_setup(int fd, bt_log_level least, const char *role)
{
    log_state.least = least;
    bt_log_set_fd(fd);
    bt_log_set_role(role);
}

void bt_log_set_fd(int fd)
{
    log_state.fd = fd < 0 ? STDERR_FILENO : fd;
}

void bt_log_set_role(const char *role)
{
    snprintf(log_state.role, sizeof(log_state.role), "%s", role);
}

const char *bt_log_role(void)
{
    return log_state.role;
}

int bt_log_fd(void)
{
    return log_state.fd;
}

static size_t write_prefix(char *out, size_t size, bt_log_level level)
{
    uint64_t now_ms = bt_clock_wall_ms();
    time_t seconds = (time_t) (now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t len = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
    /* The pid is asked for each time: a remembered one would be the parent's after a fork. */
    int rest = snprintf(out + len, size - len, ".%03uZ %-5s %s[%d] ", (unsigned) (now_ms % 1000), level_names[level],
                        log_state.role, (int) getpid());
    return len + (size_t) rest;
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* Appends `text` with control bytes escaped, as much of it as fits before `limit`; an escape is never cut. */
static size_t append_escaped(char *out, size_t len, size_t limit, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char) *p;
        if (len + (is_control(c) ? 4 : 1) > limit)
            break;
        if (!is_control(c)) {
            out[len++] = *p;
            continue;
        }
        out[len++] = '\\';
        out[len++] = 'x';
        out[len++] = hex[c >> 4];
        out[len++] = hex[c & 15];
    }
    return len;
}

/* Publishes the bytes after they are written: who reads it after a crash finds whole lines. */
static void append_to_tail(bt_log_tail *tail, const char *line, size_t len)
{
    uint64_t written = atomic_load_explicit(&tail->written, memory_order_relaxed);
    bool is_cut = len > BT_LOG_TAIL_LINE;
    size_t kept = is_cut ? BT_LOG_TAIL_LINE : len;
    for (size_t i = 0; i < kept; i++)
        tail->bytes[(written + i) % BT_LOG_TAIL_BYTES] = is_cut && i + 1 == kept ? '\n' : line[i];
    atomic_store_explicit(&tail->written, written + kept, memory_order_release);
}

__attribute__((format(printf, 2, 0))) static void log_args(bt_log_level level, const char *format, va_list args)
{
    if (level < log_state.least && log_state.tail == NULL)
        return;
    int saved_errno = errno; /* callers log on their way to looking at errno, and %m needs it */

    char text[LINE_MAX_BYTES];
    if (vsnprintf(text, sizeof(text), format, args) < 0)
        snprintf(text, sizeof(text), "unprintable message: %s", format);

    char line[LINE_MAX_BYTES];
    size_t len = write_prefix(line, sizeof(line), level);
    len = append_escaped(line, len, sizeof(line) - 1, text);
    line[len++] = '\n';

    if (log_state.tail != NULL)
        append_to_tail(log_state.tail, line, len);
    while (level >= log_state.least && write(log_state.fd, line, len) < 0 && errno == EINTR)
        continue;
    errno = saved_errno;
}

void bt_log(bt_log_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_args(level, format, args);
    va_end(args);
}

void baton_log(baton_log_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_args(level > BATON_LOG_ERROR ? BT_LOG_ERROR : (bt_log_level) level, format, args);
    va_end(args);
}

void bt_log_keep_tail(bt_log_tail *tail)
{
    log_state.tail = tail;
}

/* Lays the ring out straight. Returns how many bytes belong to lines of which nothing is missing, from *begin on. */
static size_t straighten(const bt_log_tail *tail, char *out, size_t *begin)
{
    uint64_t written = atomic_load_explicit(&tail->written, memory_order_acquire);
    size_t len = written < BT_LOG_TAIL_BYTES ? (size_t) written : BT_LOG_TAIL_BYTES;
    for (size_t i = 0; i < len; i++) {
        char c = tail->bytes[(written - len + i) % BT_LOG_TAIL_BYTES];
        out[i] = c != '\n' && is_control((unsigned char) c) ? '?' : c;
    }
    const char *first = written > len ? memchr(out, '\n', len) : NULL;
    const char *last = memrchr(out, '\n', len);
    *begin = first == NULL ? 0 : (size_t) (first + 1 - out);
    if (last == NULL || (written > len && first == NULL))
        return 0;
    return (size_t) (last + 1 - out) - *begin;
}

const char *bt_log_tail_read(const bt_log_tail *tail, int max_lines, char *out, size_t size)
{
    char text[BT_LOG_TAIL_BYTES];
    size_t begin = 0;
    size_t end = straighten(tail, text, &begin) + begin;
    size_t from = end;
    for (int lines = 0; lines < max_lines && from > begin; lines++) {
        const char *before = from - begin < 2 ? NULL : memrchr(text + begin, '\n', from - begin - 1);
        size_t next = before == NULL ? begin : (size_t) (before + 1 - text);
        if (end - next >= size)
            break;
        from = next;
    }
    if (size == 0)
        return out;
    memcpy(out, text + from, end - from);
    out[end - from] = '\0';
    return out;
}

static bool needs_quotes(const char *value)
{
    if (*value == '\0')
        return true;
    for (const char *p = value; *p; p++) {
        if (*p == ' ' || *p == '=' || *p == '"' || is_control((unsigned char) *p))
            return true;
    }
    return false;
}

const char *bt_log_quote(char *out, size_t size, const char *value)
{
    if (size == 0)
        return out;
    if (!needs_quotes(value) || size < 3) {
        snprintf(out, size, "%s", value);
        return out;
    }
    size_t len = 0;
    size_t limit = size - 2; /* a cut value still gets its closing quote */
    out[len++] = '"';
    for (const char *p = value; *p; p++) {
        bool escape = *p == '"' || *p == '\\';
        if (len + (escape ? 2 : 1) > limit)
            break;
        if (escape)
            out[len++] = '\\';
        out[len++] = *p;
    }
    out[len++] = '"';
    out[len] = '\0';
    return out;
}

int bt_log_level_parse(const char *name, bt_log_level *out)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(*level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (bt_log_level) i;
            return 0;
        }
    }
    return -EINVAL;
}

/* base/log.c: builds one log line and hands it to the kernel in one write, so that lines of several
 * processes never mix. Knows nothing of what is logged. */
#include <base/log.h>

#include <base/clock.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* The one process-wide object of the library (see log.h). */
static struct {
    int fd;
    bt_log_level least;
    char role[64];
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

void bt_log(bt_log_level level, const char *format, ...)
{
    if (level < log_state.least)
        return;
    int saved_errno = errno; /* callers log on their way to looking at errno, and %m needs it */

    char text[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    int formatted = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (formatted < 0)
        snprintf(text, sizeof(text), "unprintable message: %s", format);

    char line[LINE_MAX_BYTES];
    size_t len = write_prefix(line, sizeof(line), level);
    len = append_escaped(line, len, sizeof(line) - 1, text);
    line[len++] = '\n';

    while (write(log_state.fd, line, len) < 0 && errno == EINTR)
        continue;
    errno = saved_errno;
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

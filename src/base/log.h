/* base/log.h: structured log lines of one process, one write(2) each.
 *
 *     2026-11-21T21:10:35.123Z info  master[4711] ready worker=web slot=0 pid=4712 generation=2
 *
 * Time, level, role[pid], then an event and key=value pairs (logfmt). The log is the one
 * process-wide object of the library: every layer may write to it. */
#ifndef BT_BASE_LOG_H
#define BT_BASE_LOG_H

#include <baton/types.h>
#include <stdatomic.h>

typedef enum bt_log_level {
    BT_LOG_DEBUG,
    BT_LOG_INFO,
    BT_LOG_WARN,
    BT_LOG_ERROR,
} bt_log_level;

/* `fd` is borrowed; -1 means stderr. `role` ("master", "web.0") is copied; at most 63 bytes. */
void bt_log_setup(int fd, bt_log_level least, const char *role);
void bt_log_set_fd(int fd);
void bt_log_set_role(const char *role);
const char *bt_log_role(void);
int bt_log_fd(void);

/* One line; a line feed or control byte inside the text is written as \xHH so that a line stays a line.
 * Lines are cut at 4 KiB. Never fails: a write error is ignored (there is no other place to say it). */
void bt_log(bt_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The last lines of a process in memory that outlives it (shared with the master), so that they can be told when it has
 * crashed. One writer. */
#define BT_LOG_TAIL_BYTES 2040
#define BT_LOG_TAIL_LINE  1000
typedef struct bt_log_tail {
    _Atomic uint64_t written; /* bytes ever written; the last BT_LOG_TAIL_BYTES of them are kept, in a ring */
    char bytes[BT_LOG_TAIL_BYTES];
} bt_log_tail;

/* From now on every line (also those below the level that is written to the file) goes there, too, cut at
 * BT_LOG_TAIL_LINE bytes. NULL: no more. */
void bt_log_keep_tail(bt_log_tail *tail);

/* Copies at most `max_lines` whole last lines, oldest first, each ended by a line feed, NUL-terminated. Treats the
 * memory as hostile: the process that wrote it may have gone mad; control bytes become '?'. While the process lives and
 * writes, the oldest line may be a mixture. Returns out. */
const char *bt_log_tail_read(const bt_log_tail *tail, int max_lines, char *out, size_t size);

/* Quotes a value for logfmt if it holds blanks, '=' or '"'. Writes at most size bytes, returns out. */
const char *bt_log_quote(char *out, size_t size, const char *value);

/* "debug", "info", "warn", "error"; returns 0 or -EINVAL. */
BATON_NODISCARD int bt_log_level_parse(const char *name, bt_log_level *out);

#endif

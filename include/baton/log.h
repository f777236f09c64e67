/* baton/log.h: lines of the application in the service's log (Workerman: Worker::log). */
#ifndef BATON_LOG_H
#define BATON_LOG_H

#include <baton/types.h>

typedef enum baton_log_level {
    BATON_LOG_DEBUG,
    BATON_LOG_INFO,
    BATON_LOG_WARN,
    BATON_LOG_ERROR,
} baton_log_level;

/* Writes one line, with time, level, worker and pid before it, in one write(2) to the `log_file`; levels below the
 * setting `log_level` are left out. Control bytes are written as \xHH, so that a line stays a line whatever a client
 * has sent; it is cut at 4 KiB. The last lines of a process that crashes, of all levels, are shown by `baton status`.
 * printf's format, and %m; errno is kept. Call it from the loop's thread. Never fails. */
BATON_API void baton_log(baton_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

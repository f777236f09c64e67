/* proc/crash.h: the last line of a process that crashes: which signal, where in which module, at what address.
 * The process then dies of the signal as if nobody had looked: exit status and core file are unchanged. */
#ifndef BT_PROC_CRASH_H
#define BT_PROC_CRASH_H

#include <base/log.h>

/* Catches SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT from now on. `role` is copied; `tail` (may be NULL) gets the
 * line, too, and must live as long as the process. */
void bt_crash_watch(const char *role, bt_log_tail *tail);

/* Takes the table of what is loaded now, because the loader must not be asked in a handler: again after each dlopen. */
void bt_crash_note_modules(void);

#endif

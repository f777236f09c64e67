/* base/failpoint.h: places where a test may kill, stop, delay or fail a process, also each of its allocations
 * (base/alloc.h). Only in builds with -Dfailpoints=true; elsewhere all of it is nothing.
 *
 * Armed while the service runs: BATON_FAILPOINTS names a directory; a file in it named like the point, holding one
 * action, is taken away by the first process that comes by, which then does what it says:
 *   kill | stop | abort | exit CODE | pause MS | fail ERRNO [COUNT]
 * "fail" makes bt_failpoint() return -ERRNO (a number or a name), and goes on doing so COUNT times in that process
 * (default 1); "stop" goes on at SIGCONT. Lines before the action:
 *   after N     N passes of the process that took it go by first
 *   every N     nobody takes it: each N-th pass of every process acts, for as long as the file is there
 *   role ROLE   only in processes of that role of the log ("master", "web.0")
 *   pid PID     only in that process
 * Who took it is told by the file NAME.taken.PID; just before the action there is NAME.acted.PID instead. An order
 * whose file has been removed by then is withdrawn. */
#ifndef BT_BASE_FAILPOINT_H
#define BT_BASE_FAILPOINT_H

#ifdef BATON_FAILPOINTS

/* 0, or a negative errno that the caller shall treat as the result of what comes next. Keeps errno. */
int bt_failpoint(const char *name);

/* Appends "PID CONN-ID EVENT" to the file named by BATON_PASS_LOG, in one write: who owns which connection. Events:
 * accepted, sent (in the channel of a successor), taken (its verdict is in the kernel), rearmed, passed, closed. */
void bt_pass_log(unsigned long long id, const char *event);

#else

static inline int bt_failpoint(const char *name)
{
    (void) name;
    return 0;
}

static inline void bt_pass_log(unsigned long long id, const char *event)
{
    (void) id;
    (void) event;
}

#endif
#endif

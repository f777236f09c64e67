/* proc/process.h: one worker process: starts the application, serves, drains, ends.
 *
 *   STARTING --on_worker_start, probe--> SERVING --DRAIN--> DRAINING --nothing left, or time is up--> exit
 *      \                                    \----STOP--> STOPPING --^
 *       \----------------------------STOP, the master is gone------^
 */
#ifndef BT_PROC_PROCESS_H
#define BT_PROC_PROCESS_H

#include <base/log.h>
#include <net/acceptor.h>
#include <net/loop.h>
#include <proc/channel.h>
#include <proc/orphan.h>
#include <proc/pass_in.h>
#include <proc/pass_out.h>
#include <proc/probe.h>
#include <proc/recycle.h>
#include <proc/worker.h>

/* What the master gives a fresh child. */
typedef struct bt_process_start {
    const bt_service *service;
    baton_worker *worker;
    int slot;
    uint64_t number; /* unique for the life of the master: prefix of connection ids */
    uint64_t generation;
    const char *module_path; /* the pinned module, or "" */
    const char *module_dir;  /* directory of the generation's files of this worker */
    const bt_master_config *master_config;
    int channel_fd;
    int lock_fd; /* shared with the master (proc/lock.h): let go when it has died and no port is held any more; -1 */
    const int *listen_fds; /* none: a task process */
    size_t listen_count;
    unsigned listen_sharers; /* processes that accept from each of them */
    bt_counters *counters;
    bt_log_tail *tail;
    bt_counter *crew_connections; /* shared by the processes of the worker */
    bt_counters *crew_counters;   /* the same row: what outlives each of them */
} bt_process_start;

/* How long a process may take for the polite ends after its deadline; the master's kill waits that much longer. */
#define BT_LAST_WORDS_MS 500

/* How often bt_counters.heartbeat_ms is written while the loop turns. */
#define BT_HEARTBEAT_MS 500

/* Exit code of a process that could not start; the text goes to the master before. */
#define BT_EXIT_CANNOT_START 70

typedef enum bt_process_state {
    BT_PROCESS_STARTING,
    BT_PROCESS_SERVING,
    BT_PROCESS_DRAINING,
    BT_PROCESS_STOPPING,
} bt_process_state;

typedef struct bt_process {
    bt_loop loop;
    bt_endpoint endpoint;
    const bt_process_start *start;
    bt_process_state state;
    bt_channel channel;
    bt_list acceptors; /* those that are open: of the worker's addresses, and lent ones that are being emptied */
    bt_probe probe;
    bt_recycle recycle;
    bt_orphan orphan;
    uv_timer_t heartbeat;
    bt_pass_out *pass_out; /* towards the current successor, or NULL */
    bt_list pass_outs;     /* all that are open, the oldest first: those that wait for a HELLO, and older successors' */
    bt_list pass_ins;
    uv_timer_t deadline; /* end of the drain */
    uv_timer_t retry;    /* offers refused connections again, or asks for a successor */
    uv_timer_t recount;  /* why connections stay */
    uv_idle_t finish;    /* nothing left: end from the loop, not from a callback */
    bool told_handed_over;
    bool was_extended; /* the deadline found connections still leaving, and waited for them once */
    bool is_finishing;
    bool has_failed;
    int exit_code;
} bt_process;

/* Runs in the child until its end; returns the exit code. */
BATON_NODISCARD int bt_process_run(const bt_process_start *start);

/* The process this is, NULL in the master: what stands behind the calls of the public API that name no object. */
bt_process *bt_process_current(void);

/* Tells the master why this process cannot serve; the text reaches the one who asked for the reload. */
void bt_process_fail(bt_process *process, const char *why);

/* It has not served yet, and need not any more. */
void bt_process_abandon_start(bt_process *process);

/* ---- proc/listen.c ---- */

/* Accepts from every listening socket that the process was started with. 0 or a negative errno. */
BATON_NODISCARD int bt_process_listen(bt_process *process);

/* Accepts what waits in the queue of one more, and closes it; taken. -1: it was lost on its way. */
void bt_process_listen_last(bt_process *process, int fd);

/* Closes this process's copies: others accept from now on. A socket that is being emptied here is nobody else's, and
 * is emptied first. */
void bt_process_cede_listening(bt_process *process);

/* Closes all of them, whatever waits. */
void bt_process_stop_listening(bt_process *process);

/* The same, but what waits in the queues is accepted before: nobody else may be there. */
void bt_process_finish_listening(bt_process *process);

/* True when an idle connection shall not be closed yet although nobody takes it over: it has sent something that has
 * not been read, or has only just been accepted. It then has a deadline. */
bool bt_process_hears_out(baton_conn *conn);

/* ---- proc/drain.c ---- */

/* Takes `pass_fd`, which is -1 when nobody takes connections, or when the descriptor was lost on its way
 * (has_successor). `timeout_ms` may be BT_NO_LIMIT. */
void bt_process_drain(bt_process *process, bool has_successor, int pass_fd, uint64_t timeout_ms);

/* A new end for a drain that goes on. */
void bt_process_limit(bt_process *process, uint64_t timeout_ms);
void bt_process_stop(bt_process *process, uint64_t timeout_ms);

/* Ends the process when it is leaving and nothing is left. */
void bt_process_check_done(bt_process *process);

/* Nobody takes connections any more: each ends with what is being handled, idle ones at once. */
void bt_process_close_idle(bt_process *process);

/* ---- proc/handover.c ---- */

/* Another successor: takes `fd`. Nothing changes before it says HELLO. */
void bt_process_pass_to(bt_process *process, int fd);

/* Connections come from `fd`; taken. */
void bt_process_take_from(bt_process *process, int fd);

/* While it drains without a channel to a successor, the master is asked for one. */
void bt_process_seek_successor(bt_process *process);

/* Tells the master, once, that what could be passed has been. */
void bt_process_tell_handed_over(bt_process *process);

/* bt_loop.on_passable of a process that leaves. */
void bt_process_on_passable(baton_conn *conn, void *arg);

/* Counts why connections stay: now / now and then until the end. */
void bt_process_count_stays(bt_process *process);
void bt_process_watch_stays(bt_process *process);

/* Closes every pass channel. */
void bt_process_close_passes(bt_process *process);

#endif

/* proc/process.h: one worker process: starts the application, serves, drains, ends.
 *
 *   STARTING --on_worker_start--> SERVING --DRAIN--> DRAINING --nothing left, or time is up--> exit
 *                                    \----STOP--> STOPPING --^
 */
#ifndef BT_PROC_PROCESS_H
#define BT_PROC_PROCESS_H

#include <base/log.h>
#include <net/acceptor.h>
#include <net/loop.h>
#include <proc/channel.h>
#include <proc/pass_in.h>
#include <proc/pass_out.h>
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
    bt_acceptor acceptor;
    bt_pass_out *pass_out; /* towards the current successor, or NULL */
    bt_list pass_outs;     /* all that are open, the oldest first: those that wait for a HELLO, and older successors' */
    bt_list pass_ins;
    uv_timer_t deadline; /* end of the drain */
    uv_timer_t retry;    /* offers refused connections again, or asks for a successor */
    uv_timer_t recount;  /* why connections stay; drain.c's */
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

/* ---- proc/drain.c ---- */

/* Takes `pass_fd`, which is -1 when nobody takes connections, or when the descriptor was lost on its way
 * (has_successor). `timeout_ms` may be BT_NO_LIMIT. */
void bt_process_drain(bt_process *process, bool has_successor, int pass_fd, uint64_t timeout_ms);

/* A new end for a drain that goes on. */
void bt_process_limit(bt_process *process, uint64_t timeout_ms);
void bt_process_stop(bt_process *process, uint64_t timeout_ms);

/* Another successor: takes `fd`. */
void bt_process_pass_to(bt_process *process, int fd);

/* Connections come from `fd`; taken. */
void bt_process_take_from(bt_process *process, int fd);

/* Ends the process when it is leaving and nothing is left. */
void bt_process_check_done(bt_process *process);

/* Closes what drain.c has opened. */
void bt_process_close_passes(bt_process *process);

#endif

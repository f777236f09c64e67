/* proc/master_state.h: what the master knows: workers, slots, children, generations and the roll. Shared by the
 * master's files only (master.c, slot.c, spawn.c, prepare.c, roll.c, control.c, status.c). */
#ifndef BT_PROC_MASTER_STATE_H
#define BT_PROC_MASTER_STATE_H

#include <base/counters.h>
#include <base/list.h>
#include <proc/channel.h>
#include <proc/generation.h>
#include <proc/master.h>
#include <sys/types.h>

#define BT_COUNTER_ROWS 8192 /* processes that can live at one time, draining ones included */

typedef struct bt_master bt_master;
typedef struct bt_slot bt_slot;
typedef struct bt_crew bt_crew;

/* One immutable set of module copies. Kept while a worker or a child uses it. */
typedef struct bt_generation {
    bt_list node;
    uint64_t number;
    unsigned users;
    uint64_t created_ms;     /* wall clock */
    bt_module_copy *modules; /* one per worker of the service; path "" where there is none */
} bt_generation;

/*   STARTING --READY--> SERVING --DRAIN--> DRAINING --+--> gone
 *      |                   |                          |
 *      |                   +--------STOP--> STOPPING -+
 *      +---- exit, ready_timeout ---------------------+         */
typedef enum bt_child_state {
    BT_CHILD_STARTING,
    BT_CHILD_SERVING,
    BT_CHILD_DRAINING,
    BT_CHILD_STOPPING,
} bt_child_state;

/* A process as the master sees it. */
typedef struct bt_child {
    bt_list node;    /* in master->children */
    bt_list leaving; /* in slot->leaving once it drains or stops */
    bt_slot *slot;
    pid_t pid;
    uint64_t number;
    bt_generation *generation;
    bt_channel channel;
    uv_timer_t timer;      /* ready_timeout, then the kill after a drain or stop */
    unsigned open_handles; /* channel and timer: freed when both are closed */
    bt_counters *counters;
    bt_child_state state;
    uint64_t started_ms;
    uint64_t ready_ms;
    uint64_t started_wall_ms;
    bool killed_by_us;
    bool is_dead; /* reaped: a READY found in its channel comes too late */
    bool handed_over;
    char failure[BT_CHANNEL_TEXT]; /* its own words, or ours about it; "" when there are none */
} bt_child;

/* One of a worker's `count` places. */
struct bt_slot {
    bt_crew *crew;
    int index;
    int listen_fd; /* own with reuse_port, else the crew's; -1: none */
    bt_child *serving;
    bt_child *successor;   /* STARTING */
    bt_list leaving;       /* oldest first */
    bt_generation *wanted; /* fork a child of this generation as soon as the loop allows */
    uv_timer_t restart;    /* backoff */
    unsigned short_lives;  /* in a row, under a second each */
    unsigned restarts;
    uint64_t generation; /* that has served here last */
    char last_exit[64];  /* "" : none */
};

typedef struct bt_exit_count {
    char reason[64];
    uint64_t count;
} bt_exit_count;

/* One worker with its slots. */
struct bt_crew {
    bt_master *master;
    baton_worker *worker;
    bt_counters *counters; /* its processes' connections together */
    size_t index;          /* in the service's workers, and in a generation's modules */
    int listen_fd;
    bt_slot *slots;
    size_t slot_count;
    bt_generation *good;     /* the last one that survived its probation; NULL before the first */
    bt_generation *previous; /* what all slots ran before the roll; NULL once the target is good */
    bt_generation *target;   /* what the slots shall run */
    bool in_roll;
    unsigned kill_count; /* SIGKILLs from outside since the last roll */
    bt_exit_count exits[16];
    size_t exit_kinds;
};

typedef enum bt_wait {
    BT_WAIT_NONE,      /* answered when the reload was accepted */
    BT_WAIT_SERVE,     /* all slots serve */
    BT_WAIT_PROBATION, /* and have survived the probation */
} bt_wait;

/* Somebody who wants to hear how a reload or a stop goes (control.c). */
typedef struct bt_waiter {
    bt_list node;
    uint64_t generation; /* done when this or a later one serves */
    bt_wait wait;
    void (*on_progress)(struct bt_waiter *waiter, const char *worker, int slot, const char *step, pid_t pid,
                        uint64_t generation, const char *detail);
    void (*on_done)(struct bt_waiter *waiter, bool ok, uint64_t generation, const char *message); /* unlinked before */
} bt_waiter;

/* What a reload was asked to do. Requests that come before the helper is forked share one. */
typedef struct bt_reload_job {
    bool is_wanted;     /* fork a helper for it as soon as the loop allows */
    bool without_limit; /* USR2: stragglers may take for ever */
    uint64_t generation;
    uint64_t asked_ms;
    bool *scope; /* per worker: takes part */
} bt_reload_job;

/*   IDLE --generation prepared--> ROLLING --all slots serve it--> IDLE (probation runs)
 *                                    |  ^                           |
 *                        a failure   v  | newer generation          | crash within the probation
 *                                 REVERTING <-----------------------+
 *                                    +--the last good generation serves again--> IDLE       */
typedef enum bt_roll_state {
    BT_ROLL_IDLE,
    BT_ROLL_ROLLING,
    BT_ROLL_REVERTING,
} bt_roll_state;

typedef struct bt_roll {
    bt_roll_state state;
    uint64_t generation; /* newest that the roll leads to */
    uint64_t failed;     /* the one being reverted from */
    bt_slot *slot;       /* being replaced now, or NULL */
    bt_child *old;       /* whose handover is awaited, or NULL */
    bool without_limit;  /* of the job that is being rolled out */
    bool in_probation;
    uv_timer_t probation;
    uv_timer_t mend; /* a way back has failed: it is tried again */
    unsigned mend_tries;
    bool is_mending;
    uint64_t started_ms;
    char failure[1024];
    bt_list waiters;

    /* preparing the next generation in a helper process */
    bt_reload_job job;      /* wanted, or being prepared by the helper */
    bt_reload_job next_job; /* asked for while the helper was running: the files may have changed since */
    bt_reload_job done_job; /* whose helper has just ended */
    pid_t helper;
    bt_channel helper_channel;
    unsigned helper_handles;
    bt_generation *helper_result;
    char helper_failure[1024];

    uint64_t reloads;
    bool has_last;
    bool last_ok;
    uint64_t last_generation;
    uint64_t last_took_ms;
    char last_message[1024];
} bt_roll;

typedef enum bt_master_phase {
    BT_MASTER_STARTING,
    BT_MASTER_RUNNING,
    BT_MASTER_STOPPING,
} bt_master_phase;

struct bt_master {
    uv_loop_t loop;
    bt_service *service;
    bt_config *config;
    bt_master_phase phase;
    int exit_code;
    bool is_done;
    char refusal[1024]; /* why it could not start; "" when it could */
    bool has_loop;
    bool hup_stops; /* in the foreground on a terminal */
    bool stop_graceful;
    uint64_t started_ms;
    uint64_t started_wall_ms;

    bt_crew *crews;
    size_t crew_count;
    bt_list children;
    bt_list generations;
    uint64_t last_generation;
    uint64_t last_process;
    bt_roll roll;

    int *fds; /* the registry: descriptors that a child must not keep */
    size_t fd_count;
    size_t fd_cap;

    bt_counters *counters;
    bool *counter_used;

    uv_signal_t signals[7];
    int pid_fd;
    int daemon_fd; /* the start's result goes here; -1 */
    int log_fd;
    char *control_path;
    struct bt_control *control;
};

/* ---- master.c ---- */

/* Descriptors of the master that must not live on in a child: a stray copy of a channel's end would hide its
 * end-of-file. */
BATON_NODISCARD int bt_master_fd_add(bt_master *master, int fd);
void bt_master_fd_remove(bt_master *master, int fd);

/* Begins to stop; a second call only makes it less patient. */
void bt_master_stop(bt_master *master, bool graceful);

/* A child has gone, or a slot serves: look whether the start or the stop is complete. */
void bt_master_check(bt_master *master);

/* The first generation cannot serve: says so and stops. */
void bt_master_start_failed(bt_master *master, const char *why);

/* ---- slot.c ---- */

void bt_slot_init(bt_slot *slot, bt_crew *crew, int index);

/* Asks for a child of `generation`, forked when the loop has turned. */
void bt_slot_spawn(bt_slot *slot, bt_generation *generation);
void bt_slot_cancel_restart(bt_slot *slot);
void bt_slot_cancel_spawn(bt_slot *slot);

/* The fork that was asked for could not be done: treated as a successor that died at once. */
void bt_slot_fork_failed(bt_slot *slot, bt_generation *generation, const char *why);

/* Gives each draining process of the slot a channel to the process that serves it now. */
void bt_slot_connect_stragglers(bt_slot *slot);

/* Takes the freshly forked process. NULL: out of memory (the caller kills it). */
bt_child *bt_child_new(bt_slot *slot, bt_generation *generation, pid_t pid, uint64_t number, int channel_fd,
                       bt_counters *counters);
void bt_child_exited(bt_child *child, int status);

/* Sends DRAIN or STOP and arms the kill. `successor` takes the connections; NULL: nobody does. `timeout_ms` may be
 * BT_NO_LIMIT.
 */
void bt_child_drain(bt_child *child, bt_child *successor, uint64_t timeout_ms);
void bt_child_stop(bt_child *child, uint64_t timeout_ms);

/* A drain without end gets one after all. */
void bt_child_limit(bt_child *child, uint64_t timeout_ms);
void bt_child_kill(bt_child *child);

/* "exit 1", "signal 11 (Segmentation fault)". Returns out. */
const char *bt_exit_text(int status, char *out, size_t size);

/* ---- spawn.c ---- */

/* Forks what slots and the roll have asked for. Called between turns of the loop, so that the child has no frame of the
 * loop below it. In a child it does not return. */
void bt_spawn_pending(bt_master *master);
bool bt_spawn_is_pending(const bt_master *master);

/* Fork for a helper that only computes: in the child (returns 0) only `keep_fd` of the registry stays open, and the
 * loop is gone. Returns the pid in the master, or a negative errno. */
BATON_NODISCARD pid_t bt_fork_clean(bt_master *master, const int *keep, size_t keep_count);

/* A free row of the shared table, zeroed; NULL when there is none. */
bt_counters *bt_take_counters(bt_master *master);

/* ---- prepare.c ---- */

BATON_NODISCARD int bt_prepare_init(bt_master *master);
void bt_prepare_free(bt_master *master);

/* Forks the helper that copies and checks the modules of roll.job (spawn.c calls it). */
void bt_prepare_fork(bt_master *master);
void bt_prepare_exited(bt_master *master, int status);
void bt_prepare_cancel(bt_master *master);

bt_generation *bt_generation_ref(bt_generation *generation);

/* Removes the files when nobody uses them any more. NULL is allowed. */
void bt_generation_unref(bt_master *master, bt_generation *generation);

/* ---- reload.c: who asks for a reload, and what they hear ---- */

/* Asks for a reload of `crew` (NULL: all reloadable ones). `waiter` may be NULL; it hears the end exactly once. */
void bt_reload_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter);

/* A generation is ready (`why` NULL, the reference is taken over), or could not be made. */
void bt_reload_prepared(bt_master *master, const bt_reload_job *job, bt_generation *generation, const char *why);

/* Tells those who wait for `generation` or an earlier one; with `ok`, only who waits for no more than `wait`. */
void bt_reload_answer(bt_master *master, uint64_t generation, bool ok, bt_wait wait, const char *message);

/* Keeps the result for `status`, and logs it. */
void bt_reload_remember(bt_master *master, uint64_t generation, bool ok, uint64_t since_ms, const char *message);

void bt_reload_progress(bt_master *master, const bt_slot *slot, const char *step, pid_t pid, uint64_t generation,
                        const char *detail);

/* The master stops: everybody who waits hears so. */
void bt_reload_cancel(bt_master *master, const char *why);

/* ---- roll.c ---- */

void bt_roll_init(bt_master *master);

/* The first generation: all slots at once. */
void bt_roll_start_first(bt_master *master, bt_generation *generation);

/* Rolls the workers of the job to `generation`; overtakes whatever roll is going on. */
void bt_roll_start(bt_master *master, const bt_reload_job *job, bt_generation *generation);

/* Gives the drain that the roll waits for an end, if it had none: a reload that knows limits must not wait for ever. */
void bt_roll_end_patience(bt_master *master);

/* The master stops. */
void bt_roll_stop(bt_master *master);

/* The roll itself will fill the slot; nobody else restarts it. */
bool bt_roll_owns_slot(const bt_slot *slot);

/* What slot.c saw. */
void bt_roll_child_ready(bt_child *child);
void bt_roll_child_handed_over(bt_child *child);
void bt_roll_child_gone(bt_child *child, const char *reason, bool by_outside_kill);

/* A successor could not even be forked. */
void bt_roll_start_failed(bt_slot *slot, const bt_generation *generation, const char *reason);

/* The start is complete: a reload asked for meanwhile goes on. */
void bt_roll_resume(bt_master *master);

/* The generation in which a crashed slot comes back. */
bt_generation *bt_roll_restart_generation(bt_slot *slot);

/* ---- status.c ---- */

/* A new JSON object for "status" (proc/control.h), owned by the caller. NULL: out of memory. */
struct json_t *bt_status_json(bt_master *master);

#endif

/* proc/master_state.h: what the master knows: workers, slots, children, generations and the roll. Shared by the
 * master's files only. */
#ifndef BT_PROC_MASTER_STATE_H
#define BT_PROC_MASTER_STATE_H

#include <base/counters.h>
#include <base/list.h>
#include <base/log.h>
#include <proc/channel.h>
#include <proc/generation.h>
#include <proc/master.h>
#include <sys/stat.h>
#include <sys/types.h>

#define BT_ROWS 8192 /* processes that can live at one time, draining ones included, and workers */

#define BT_SHORT_LIFE_MS 1000
#define BT_CRASH_LOOP    3 /* lives under a second, in a row, that are an alarm */

/* What is shared with one process: it writes, the master reads. */
typedef struct bt_row {
    bt_counters counters;
    bt_log_tail tail;
} bt_row;

typedef struct bt_master bt_master;
typedef struct bt_slot bt_slot;
typedef struct bt_crew bt_crew;

/* One immutable set of module copies and the configuration they were made for. Both are kept while a worker or a child
 * uses it; its record stays for `generations`. */
typedef struct bt_generation {
    bt_list node; /* in master->generations, oldest first */
    uint64_t number;
    unsigned users;
    uint64_t created_ms;     /* wall clock */
    bool is_whole;           /* made for all workers: also who is there and [baton] are its */
    const bt_config *config; /* NULL when nobody uses it any more */
    bool owns_config;        /* else it is the service's */
    bt_module_copy *modules; /* one per worker of the config; path "" where there is none */
    size_t module_count;
    char failure[256]; /* why it was given up; "" when it was not */
} bt_generation;

/* The sockets of one address. They stay open while a worker is configured to listen there, whichever processes accept
 * from them, so that no queue is ever closed. */
typedef struct bt_listen_set {
    bt_list node; /* in master->listen_sets */
    bt_listen_address address;
    bt_crew *crew; /* that used it last; NULL when that is gone */
    int *fds;      /* one, or with reuse_port one for each slot there has ever been */
    size_t count;
} bt_listen_set;

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
    bt_row *row;
    bt_child_state state;
    uint64_t started_ms;
    uint64_t ready_ms;
    uint64_t started_wall_ms;
    size_t sockets; /* its address had when it was forked; 0: none, or not known */
    bool killed_by_us;
    bool is_dead; /* reaped: a READY found in its channel comes too late */
    bool handed_over;
    bool is_stale;                 /* of a program that has failed: it is replaced whatever generation it runs */
    char failure[BT_CHANNEL_TEXT]; /* its own words, or ours about it; "" when there are none */
} bt_child;

/* One of a worker's `count` places. */
struct bt_slot {
    bt_crew *crew;
    int index;
    bt_child *serving;
    bt_child *successor; /* STARTING */
    bt_list leaving;     /* oldest first */
    bool wants_recycle;  /* its process has reached max_requests or max_memory */
    bool is_closing;
    bt_generation *wanted; /* fork a child of this generation as soon as the loop allows */
    uv_timer_t restart;    /* backoff */
    unsigned short_lives;  /* in a row, under a second each */
    unsigned restarts;
    unsigned kills;      /* SIGKILLs from outside since the last roll began */
    uint64_t generation; /* that has served here last */
    char last_exit[64];  /* "" : none */
};

typedef struct bt_exit_count {
    char reason[64];
    uint64_t count;
} bt_exit_count;

/* What a crew takes part in. */
typedef enum bt_job_place {
    BT_JOB_NOW,  /* wanted, or being prepared by the helper */
    BT_JOB_NEXT, /* asked for while the helper was running: the files may have changed since */
    BT_JOB_DONE, /* whose helper has just ended */
    BT_JOB_PLACES,
} bt_job_place;

/* One worker with its slots. `config` is its section in the target's configuration. */
struct bt_crew {
    bt_master *master;
    baton_worker *worker;
    bool owns_worker; /* else it is the service's */
    char name[64];
    const bt_worker_config *config;
    bt_row *row; /* its processes' connections together */
    bt_slot **slots;
    size_t slot_count;       /* slots from config->count on are surplus: they empty */
    bt_generation *good;     /* the last one that survived its probation; NULL before the first */
    bt_generation *previous; /* what all slots ran before the roll; NULL once the target is good */
    bt_generation *target;   /* what the slots shall run */
    bt_generation *next;     /* target of the roll that is being planned */
    bt_generation **kept;    /* earlier good ones, oldest first, for `rollback` */
    size_t kept_count;
    bool takes_part[BT_JOB_PLACES];
    bool in_roll;        /* and not proved or not complete yet */
    bool is_rolling;     /* part of the roll that is going on, not only of a probation */
    bool shall_leave;    /* the configuration being rolled out does not have it */
    bool plans_to_leave; /* the same of the roll that is being planned */
    bool is_leaving;     /* its processes drain without successors; freed when the last is gone */
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
    uint64_t serial; /* of the job: done when this or a later one is */
    bt_wait wait;
    void (*on_progress)(struct bt_waiter *waiter, const char *worker, int slot, const char *step, pid_t pid,
                        uint64_t generation, const char *detail);
    /* `log`: last lines of the process whose fault it was, or "". Unlinked before. */
    void (*on_done)(struct bt_waiter *waiter, bool ok, uint64_t generation, const char *message, const char *log);
} bt_waiter;

/* What a reload was asked to do. Requests that come before the helper is forked share one. */
typedef struct bt_reload_job {
    bool is_wanted;     /* fork a helper for it as soon as the loop allows */
    bool everything;    /* not only named workers: added and removed ones, and [baton], take part */
    bool without_limit; /* USR2: stragglers may take for ever */
    uint64_t serial;    /* of jobs; rollbacks have one, too */
    uint64_t generation;
    uint64_t asked_ms;
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
    uint64_t generation;    /* that the roll leads to */
    uint64_t serial;        /* of its job */
    uint64_t last_serial;   /* given to a job */
    uint64_t failed;        /* generation being reverted from */
    uint64_t failed_serial; /* and its job */
    bt_generation *whole;   /* whose [baton] settings apply when the roll succeeds, or NULL */
    bt_slot *slot;          /* being replaced now, or NULL */
    bt_child *old;          /* whose handover is awaited, or NULL */
    bool without_limit;     /* of the job that is being rolled out */
    bool in_probation;
    uv_timer_t probation;
    uv_timer_t mend; /* a way back has failed: it is tried again */
    unsigned mend_tries;
    bool is_mending;
    uint64_t started_ms;
    char failure[1024];
    char failure_log[BT_LOG_TAIL_BYTES + 8]; /* last lines of the process that failed */
    bt_list waiters;

    /* preparing the next generation in a helper process */
    bt_reload_job jobs[BT_JOB_PLACES];
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

/* Another program shall take the master's place (upgrade.c). */
typedef struct bt_upgrade {
    bool is_wanted;    /* fork the check as soon as the loop allows */
    bool is_checked;   /* execute as soon as no roll is going on */
    bool shall_return; /* to the old program */
    bool on_trial;     /* executed, and has not survived its probation yet */
    pid_t checker;
    struct stat program;  /* the file that was checked */
    int output_fd;        /* what the check says, or -1 */
    int old_fd;           /* the old program, while this one is on trial, or -1 */
    uint64_t old_last;    /* number of the last process that the old program has forked */
    uint64_t serial;      /* of the job that rolls it out */
    uint64_t flush_by_ms; /* clients that read their answers are waited for until then; 0: nobody is */
    uv_timer_t patience;
    bt_list waiters;

    /* why it shall return */
    uint64_t failed; /* generation */
    bool took_traffic;
    char failure[1024];
} bt_upgrade;

typedef enum bt_master_phase {
    BT_MASTER_STARTING,
    BT_MASTER_RUNNING,
    BT_MASTER_STOPPING,
} bt_master_phase;

struct bt_master {
    uv_loop_t loop;
    bt_service *service;
    bt_config *config;              /* that it was started with: its paths stay */
    bt_generation *current;         /* whose [baton] settings are in force; NULL before the first */
    const bt_master_config *limits; /* these settings */
    bt_master_phase phase;
    int exit_code;
    bool is_done;
    char refusal[1024]; /* why it could not start; "" when it could */
    bool has_loop;
    bool hup_stops; /* in the foreground on a terminal */
    bool stop_graceful;
    uint64_t started_ms;
    uint64_t started_wall_ms;

    bt_crew **crews; /* in the order of the configuration, later ones behind */
    size_t crew_count;
    bt_list children;
    bt_list generations;
    bt_list listen_sets;
    bt_slot *recycling; /* whose fresh process is awaited */
    uv_timer_t watch;   /* looks for stuck processes */
    uint64_t watched_at_ms;
    uint64_t watched_since_ms; /* without a pause of our own */
    uint64_t last_generation;
    uint64_t last_process;
    bt_roll roll;
    bt_upgrade upgrade;

    int *fds; /* the registry: descriptors that a child must not keep */
    size_t fd_count;
    size_t fd_cap;

    bt_row *rows;
    int rows_fd; /* memfd: outlives an upgrade */
    bool *row_used;

    uv_signal_t signals[7];
    int pid_fd;
    int lock_fd;   /* shared with all processes: its lock tells whether any of an earlier master is left */
    int daemon_fd; /* the start's result goes here; -1 */
    int log_fd;
    int reserve_fds[2]; /* given up for a moment where a full master must not fail; -1 */
    char *control_path;
    struct bt_control *control;
};

#endif

/* proc/config.h: the values of all settings, as plain data. Filled by src/app/settings.c from baton.ini or
 * a start program; read by the master and the processes. Times are milliseconds. Strings are owned
 * by the struct (malloc) and NULL when not set. Paths are absolute once loaded. */
#ifndef BT_PROC_CONFIG_H
#define BT_PROC_CONFIG_H

#include <base/list.h>
#include <net/address.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum bt_strategy {
    BT_STRATEGY_READY_FIRST,
    BT_STRATEGY_STOP_FIRST,
} bt_strategy;

/* What processes do when the master has died. */
typedef enum bt_on_master_exit {
    BT_ON_MASTER_EXIT_STOP,  /* accept what is queued, free the port, drain, end */
    BT_ON_MASTER_EXIT_SERVE, /* serve on until SIGTERM */
} bt_on_master_exit;

/* Section [baton]. */
typedef struct bt_master_config {
    char *pid_file;    /* default run/baton.pid */
    char *run_dir;     /* default run */
    char *log_file;    /* NULL: stderr */
    char *log_level;   /* info */
    char *stdout_file; /* NULL: inherited in the foreground, /dev/null as a daemon */
    bool daemonize;
    uint64_t stop_timeout_ms; /* 2 s */
    uint64_t kill_timeout_ms; /* 5 s */
    bt_on_master_exit on_master_exit;
    int64_t keep_generations; /* proved generations kept for `rollback`, the serving one not counted; 3 */
} bt_master_config;

/* Section [worker NAME]. */
typedef struct bt_worker_config {
    char *name;
    char *listen; /* NULL: a task process */
    bt_listen_address address;
    int64_t count;
    char *module;
    char *module_files; /* absolute paths separated by blanks */
    char *user;
    char *group;
    bool reuse_port;
    bool reloadable; /* default yes */
    int64_t backlog;
    bt_strategy strategy;
    uint64_t ready_timeout_ms;  /* 10 s */
    uint64_t drain_timeout_ms;  /* 30 s */
    uint64_t probation_ms;      /* 5 s */
    int64_t max_draining;       /* 4 */
    uint64_t max_package;       /* 10 MiB */
    uint64_t max_send_buffer;   /* 1 MiB */
    uint64_t max_head;          /* 16 KiB */
    uint64_t max_target;        /* 8 KiB */
    int64_t max_headers;        /* 128 */
    uint64_t header_timeout_ms; /* 60 s */
    uint64_t idle_timeout_ms;   /* 75 s, 0 = never */
    uint64_t linger_timeout_ms; /* 5 s */
    int64_t keepalive_requests; /* 0 = no limit */
    char *probe;                /* path that an http worker must answer below 500 before it is ready; NULL: none */
    int64_t max_requests;       /* a process is replaced after so many; 0 = never */
    uint64_t max_memory;        /* resident bytes, the same; 0 = never */
    uint64_t stuck_timeout_ms;  /* a process whose loop has not turned for so long is killed; 0 = never */
} bt_worker_config;

typedef struct bt_config {
    char *file;     /* absolute path of baton.ini; NULL for a start program */
    char *text;     /* what the file said when it was read; NULL for a start program */
    char *base_dir; /* relative paths start here */
    bt_master_config master;
    bt_worker_config **workers;
    size_t worker_count;
} bt_config;

#endif

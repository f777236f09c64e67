/* baton/worker.h: workers, their callbacks, and the start program (Workerman: Worker). */
#ifndef BATON_WORKER_H
#define BATON_WORKER_H

#include <baton/types.h>

struct uv_loop_s;

/* The callbacks of one worker. All are optional but on_request for an http worker. They run in the
 * worker's processes, never in the master. */
typedef struct baton_callbacks {
    /* The process is up and its user set; nothing has been accepted yet. Return 0 to serve; any other
     * value refuses: the process ends and the reload (or the start) fails. */
    int (*on_worker_start)(baton_worker *worker);

    /* The process has finished its connections and ends when this returns. */
    void (*on_worker_stop)(baton_worker *worker);

    /* A reload was asked for. A reloadable worker's process is replaced next; one with
     * `reloadable = no` goes on serving. */
    void (*on_worker_reload)(baton_worker *worker);

    /* A client has connected. Not called for a connection passed by another process. */
    void (*on_connect)(baton_conn *conn);

    /* A whole HTTP request has arrived. Reply now, or later. */
    void (*on_request)(baton_conn *conn, const baton_request *req);

    /* A whole message has arrived on a stream protocol (tcp: whatever was read). */
    void (*on_message)(baton_conn *conn, baton_str message);

    /* The connection has ended, for whatever reason but a pass. */
    void (*on_close)(baton_conn *conn);

    /* `error` is a negative errno: -ENOBUFS a message was dropped, -ECONNRESET..., -EPROTO bad input. */
    void (*on_error)(baton_conn *conn, int error);

    /* The queue of unsent bytes has reached max_send_buffer; it has become empty again. */
    void (*on_buffer_full)(baton_conn *conn);
    void (*on_buffer_drain)(baton_conn *conn);

    /* The connection, which has a user pointer, is about to leave for another process: write the state behind the
     * pointer with baton_pass_write(), in the format of baton_pass_version(). Nothing of it may be freed or changed:
     * the other process may refuse, and it may be asked for again. Return 0, or anything else to keep the connection:
     * it is then answered once more and closed, or ended when the drain is over. Without on_pass every connection with
     * a user pointer is kept. */
    int (*on_pass)(baton_conn *conn, baton_pass *pass);

    /* Runs in the successor for every connection it takes over, before it is read. `state` is what on_pass wrote, in
     * the format of `version`, or empty (data NULL) when the connection had no user pointer. Make what on_connect
     * would have made. Nothing can be sent yet. Return 0, or anything else to refuse the connection: nothing may be
     * left of it here then, neither on_passed nor on_close follows. */
    int (*on_take)(baton_conn *conn, uint32_t version, baton_str state);

    /* The connection, which has a user pointer, has left this process for good: free what is behind the pointer. There
     * is no on_close for it here. Its handle is detached: calls on it fail with -ENOTCONN, but baton_conn_user() is
     * what it was until this returns. */
    void (*on_passed)(baton_conn *conn);

    /* The newest version of the state that on_take reads and on_pass writes; it must read all older ones. While a
     * successor is older than this code (a rollback), on_pass is asked for the successor's version. */
    size_t state_version;
} baton_callbacks;

/* Named options of baton_worker_new(). Zero means "the default"; every setting of docs/settings.md,
 * these included, can also be given by name with baton_worker_set(). */
typedef struct baton_worker_options {
    const char *name;         /* default "none", then "none-2", ... */
    int count;                /* processes, 1..1024, default 1 */
    const char *module;       /* a module loaded in each process after the fork; renewed by reload */
    const char *module_files; /* more files of a generation, separated by blanks */
    const char *user;         /* user and group of the processes; needs root */
    const char *group;
    int backlog;             /* default 102400, cut by net.core.somaxconn */
    baton_switch reuse_port; /* one listening socket per slot; default off */
    baton_switch reloadable; /* default on */
    baton_callbacks callbacks;

    /* Runs in the master when a process of this worker has ended. `status` is waitpid's. */
    void (*on_worker_exit)(baton_worker *worker, int status, int pid);
} baton_worker_options;

/* Describes a worker of a start program; call it before baton_run(). `address` is "http://0.0.0.0:80",
 * "text://[::]:9000", "unix:///run/x.sock", or NULL for a task process without a listener.
 * A mistake (bad address, count out of range) is reported by baton_run(). Never returns NULL.
 *     baton_worker_new("http://0.0.0.0:1234", .count = 4, .module = "./handler.so"); */
#define baton_worker_new(address, ...) baton_worker_create((address), &(const baton_worker_options){__VA_ARGS__})
BATON_API baton_worker *baton_worker_create(const char *address, const baton_worker_options *options);

/* Sets one setting by its name in baton.ini. Returns 0, or -EINVAL for an unknown name or bad value,
 * which baton_run() will also report in words. */
BATON_API int baton_worker_set(baton_worker *worker, const char *setting, const char *value);

/* The same for the [baton] section: "pid_file", "log_file", "daemonize", ... Relative paths are
 * relative to the directory of the running program. */
BATON_API int baton_set(const char *setting, const char *value);

/* Callbacks that run in the master, given before baton_run(). */
BATON_API void baton_on_master_reload(void (*callback)(void));
BATON_API void baton_on_master_stop(void (*callback)(void));

/* Understands `start | stop | restart | reload | rollback | upgrade | status | generations | check | --help |
 * --version` and does it. Returns the exit code for main(). */
BATON_API BATON_NODISCARD int baton_run(int argc, char **argv);

/* ---- inside a process ---- */

BATON_API const char *baton_worker_name(const baton_worker *worker);

/* 0..count-1. The replacement of a process has the same slot (Workerman: Worker::$id). */
BATON_API int baton_worker_slot(const baton_worker *worker);

/* The application's own pointer, one per worker and process. */
BATON_API void *baton_worker_user(const baton_worker *worker);
BATON_API void baton_worker_set_user(baton_worker *worker, void *user);

/* Loads `file`, one of the worker's module_files, from this process's generation and takes its
 * callbacks as the worker's. For on_worker_start of a start program: what it loads is renewed by
 * reload. Returns 0 or a negative errno; the reason is logged and reported by a failed reload. */
BATON_API BATON_NODISCARD int baton_worker_load(baton_worker *worker, const char *file);

/* Number of the code this process runs: 1 after start, one more with each reload. */
BATON_API uint64_t baton_generation(void);

/* The process's libuv loop, for libraries of your own. Do not stop or close it. */
BATON_API struct uv_loop_s *baton_loop(void);

/* Ask the master to stop everything (`graceful`: up to drain_timeout), or to reload all reloadable
 * workers. They return at once: 0, or -EPIPE when the master is gone. */
BATON_API int baton_stop_all(bool graceful);
BATON_API int baton_reload_all(void);

#endif

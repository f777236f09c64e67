/* proc/worker.h: a worker definition, as the master and its processes know it.
 * The layer above fills it from baton.ini or a start program; modules are loaded through the hook. */
#ifndef BT_PROC_WORKER_H
#define BT_PROC_WORKER_H

#include <baton/worker.h>
#include <proc/config.h>

struct bt_process;

struct baton_worker {
    const bt_worker_config *config; /* borrowed: of the generation that it shall run, in a process: that it runs */
    baton_callbacks callbacks;      /* the program's own; in a process, the module's once it is loaded */
    void (*on_worker_exit)(baton_worker *worker, int status, int pid);
    void *user;                 /* baton_worker_set_user, per process */
    struct bt_process *process; /* NULL in the master */
};

/* Everything that is served, by the command or a start program alike. */
typedef struct bt_service {
    bt_config *config;
    baton_worker **workers; /* config->worker_count, same order as config->workers */
    void (*on_master_reload)(void);
    void (*on_master_stop)(void);

    /* Reads the configuration again, with every check: in the helper of a reload, because it may block. NULL with the
     * mistakes, a malloc'ed text. Itself NULL for a start program, whose configuration only changes by an upgrade. */
    bt_config *(*read_config)(const char *file, char **errors);

    /* Makes a configuration of a text that has been checked before: in the master, so it must not block. `like` gives
     * the file's name and directory. NULL when out of memory or, with `errors`, when the text is not understood. */
    bt_config *(*parse_config)(const char *text, const bt_config *like, char **errors);
    void (*free_config)(bt_config *config);

    /* The same as a JSON object, for an upgrade; `why` says what an object lacks. */
    struct json_t *(*config_to_json)(const bt_config *config);
    bt_config *(*config_from_json)(const struct json_t *object, char *why, size_t size);

    /* For an upgrade: what is executed, and how this program was called. */
    const char *program; /* absolute; symlinks are kept, so that a new release behind one is found */
    char *const *argv;
    char *const *check_argv; /* does no harm in a program that does not know of upgrades */
    struct json_t *handover; /* what an earlier image of the master has left; NULL: an ordinary start */

    /* Loads a pinned module and takes its callbacks: runs in a process, never in the master.
     * Returns 0 or a negative errno with one line in `why`. */
    int (*load_module)(baton_worker *worker, const char *path, char *why, size_t why_size);
} bt_service;

#endif

/* app/service.h: a service for the master, built from a configuration. */
#ifndef BT_APP_SERVICE_H
#define BT_APP_SERVICE_H

#include <proc/worker.h>

/* One worker object per worker of the config, without callbacks: those come with the modules; and the hooks that renew
 * the configuration. The service owns
 * `config` from now on, also when NULL is returned (out of memory). */
bt_service *bt_service_new_take(bt_config *config);
void bt_service_free(bt_service *service);

/* Reads baton.ini with every check there is. *errors and *warnings: malloc'ed lines, NULL when there are none, each
 * with the file in front: "baton.ini:7: worker web: count: ...", "baton.ini: worker web: module: ...", "baton.ini:
 * warning: worker web: ...". Mistakes between settings have no line of their own. NULL when there are errors. */
bt_config *bt_service_read_checked(const char *file, char **errors, char **warnings);

/* The hook bt_service.read_config: the same without the warnings, which `start` and `check` tell. */
bt_config *bt_service_read_config(const char *file, char **errors);

/* The hook bt_service.load_module: a callback that the module has replaces the worker's own. */
BATON_NODISCARD int bt_service_load_module(baton_worker *worker, const char *path, char *why, size_t why_size);

#endif

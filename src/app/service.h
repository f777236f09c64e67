/* app/service.h: a service for the master, built from a configuration. */
#ifndef BT_APP_SERVICE_H
#define BT_APP_SERVICE_H

#include <proc/worker.h>

/* One worker object per worker of the config, without callbacks: those come with the modules. The service owns
 * `config` from now on, also when NULL is returned (out of memory). */
bt_service *bt_service_new_take(bt_config *config);
void bt_service_free(bt_service *service);

/* The hook bt_service.load_module: a callback that the module has replaces the worker's own. */
BATON_NODISCARD int bt_service_load_module(baton_worker *worker, const char *path, char *why, size_t why_size);

#endif

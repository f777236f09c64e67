/* app/service.c: workers for the master from a configuration, that configuration read anew, and modules into workers.
 * Must not know what a setting means. */
#include <app/service.h>

#include <app/config_json.h>
#include <app/module.h>
#include <app/settings.h>
#include <proto/protocol.h>
#include <stdlib.h>

/* Names every callback once; the size says so. */
static void merge_callbacks(baton_callbacks *into, const baton_callbacks *from)
{
#define MERGE(name)                                                                                                    \
    if (from->name)                                                                                                    \
    into->name = from->name
    MERGE(on_worker_start);
    MERGE(on_worker_stop);
    MERGE(on_worker_reload);
    MERGE(on_connect);
    MERGE(on_request);
    MERGE(on_message);
    MERGE(on_close);
    MERGE(on_error);
    MERGE(on_buffer_full);
    MERGE(on_buffer_drain);
    MERGE(on_pass);
    MERGE(on_take);
    MERGE(on_passed);
    MERGE(state_version);
#undef MERGE
    _Static_assert(sizeof(baton_callbacks) == 14 * sizeof(void (*)(void)), "a callback is missing above");
}

int bt_service_load_module(baton_worker *worker, const char *path, char *why, size_t why_size)
{
    baton_callbacks callbacks;
    int error = bt_module_load(path, &callbacks, why, why_size);
    if (error < 0)
        return error;
    merge_callbacks(&worker->callbacks, &callbacks);
    return 0;
}

bt_config *bt_service_read_checked(const char *file, char **errors, char **warnings)
{
    *warnings = NULL;
    bt_config *config = bt_config_read(file, errors);
    if (!config)
        return NULL;
    char *between = NULL;
    char *doubts = NULL;
    int error = bt_config_validate(config, true, bt_protocol_exists, &between, &doubts);
    bt_add_lines_take(errors, file, "", between);
    bt_add_lines_take(warnings, file, "warning: ", doubts);
    if (error == 0)
        return config;
    bt_config_free(config);
    return NULL;
}

bt_config *bt_service_read_config(const char *file, char **errors)
{
    char *warnings;
    bt_config *config = bt_service_read_checked(file, errors, &warnings);
    free(warnings);
    return config;
}

void bt_service_free(bt_service *service)
{
    if (!service)
        return;
    for (size_t i = 0; service->workers && i < service->config->worker_count; i++)
        free(service->workers[i]);
    free(service->workers);
    bt_config_free(service->config);
    free(service);
}

bt_service *bt_service_new_take(bt_config *config)
{
    bt_service *service = calloc(1, sizeof(*service));
    if (!service) {
        bt_config_free(config);
        return NULL;
    }
    service->config = config;
    service->load_module = bt_service_load_module;
    service->read_config = bt_service_read_config;
    service->parse_config = bt_config_parse;
    service->free_config = bt_config_free;
    service->config_to_json = bt_config_to_json;
    service->config_from_json = bt_config_from_json;
    service->workers = calloc(config->worker_count, sizeof(*service->workers));
    for (size_t i = 0; service->workers && i < config->worker_count; i++) {
        service->workers[i] = calloc(1, sizeof(*service->workers[i]));
        if (!service->workers[i])
            goto failed;
        service->workers[i]->config = config->workers[i];
    }
    if (service->workers)
        return service;
failed:
    bt_service_free(service);
    return NULL;
}

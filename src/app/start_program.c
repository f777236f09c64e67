/* app/start_program.c: the public calls that describe a service in a C main.
 * Must not know the commands: baton_run() is in src/cli. */
#include <app/start_program.h>

#include <app/config_json.h>
#include <app/service.h>
#include <app/settings.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A main describes its service before there is any handle to pass around, so the description is the one static
 * object behind these calls. Nothing else refers to it. */
typedef struct start_program {
    bt_service service;
    char *mistakes;
    size_t unnamed; /* workers that were given no name */
} start_program;

/* Before the first process exists there is nobody to tell and nothing to save. */
static void __attribute__((noreturn)) die_without_memory(void)
{
    fprintf(stderr, "baton: out of memory while the workers are described\n");
    exit(1);
}

/* Directory of the program, and its name for the pid file. Symlinks are followed: all names of a program mean the
 * same service. */
static bt_config *new_config(void)
{
    char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[len > 0 ? len : 0] = '\0';
    char *deleted = strstr(path, " (deleted)"); /* replaced by a newer one, to which an upgrade could not go */
    if (deleted && deleted[strlen(" (deleted)")] == '\0')
        *deleted = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return bt_config_new("."); /* no /proc: the current directory has to do */

    char pid_file[sizeof(path) + 16];
    char why[256];
    snprintf(pid_file, sizeof(pid_file), "run/%s.pid", slash + 1);
    *slash = '\0';
    bt_config *config = bt_config_new(*path ? path : "/");
    if (config && bt_config_set_master(config, "pid_file", pid_file, why, sizeof(why)) < 0) {
        bt_config_free(config);
        return NULL;
    }
    return config;
}

static start_program *get_program(void)
{
    static start_program program;
    if (!program.service.config) {
        program.service.config = new_config();
        program.service.load_module = bt_service_load_module;
        program.service.free_config = bt_config_free;
        program.service.config_to_json = bt_config_to_json;
        program.service.config_from_json = bt_config_from_json;
        if (!program.service.config)
            die_without_memory();
    }
    return &program;
}

/* "none" as in Workerman; but names are directories and handles of `reload`, so the next one is "none-2". */
static void default_name(start_program *program, char *out, size_t size)
{
    program->unnamed++;
    if (program->unnamed == 1)
        snprintf(out, size, "none");
    else
        snprintf(out, size, "none-%zu", program->unnamed);
}

static baton_worker *add_worker(start_program *program, const char *name)
{
    char fallback[32];
    if (!name) {
        default_name(program, fallback, sizeof(fallback));
        name = fallback;
    }
    bt_service *service = &program->service;
    size_t count = service->config->worker_count;
    baton_worker **workers = realloc(service->workers, (count + 1) * sizeof(*workers));
    if (!workers)
        die_without_memory();
    service->workers = workers;

    baton_worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        die_without_memory();
    worker->config = bt_config_add_worker(service->config, name);
    if (!worker->config)
        die_without_memory();
    workers[count] = worker;
    return worker;
}

static bt_worker_config *config_of(start_program *program, const baton_worker *worker)
{
    const bt_service *service = &program->service;
    for (size_t i = 0; i < service->config->worker_count; i++) {
        if (service->workers[i] == worker)
            return service->config->workers[i];
    }
    return NULL;
}

static int rename_worker(bt_worker_config *config, const char *name, char *why, size_t size)
{
    int error = bt_worker_name_check(name, why, size);
    if (error < 0)
        return error;
    char *copy = strdup(name);
    if (!copy) {
        snprintf(why, size, "name: out of memory");
        return -ENOMEM;
    }
    free(config->name);
    config->name = copy;
    return 0;
}

static int set_worker(start_program *program, bt_worker_config *config, const char *setting, const char *value)
{
    char why[384];
    int error = strcmp(setting, "name") == 0
                    ? rename_worker(config, value, why, sizeof(why))
                    : bt_config_set_worker(program->service.config, config, setting, value, why, sizeof(why));
    if (error < 0)
        bt_add_line(&program->mistakes, "worker %s: %s", config->name, why);
    return error;
}

/* What is wrong is in the list of mistakes, for baton_run to say. */
static void set_text(start_program *program, bt_worker_config *config, const char *setting, const char *value)
{
    if (value)
        (void) !set_worker(program, config, setting, value);
}

static void set_number(start_program *program, bt_worker_config *config, const char *setting, int value)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", value);
    if (value != 0)
        set_text(program, config, setting, text);
}

static void set_switch(start_program *program, bt_worker_config *config, const char *setting, baton_switch value)
{
    switch (value) {
    case BATON_DEFAULT:
        return;
    case BATON_ON:
        set_text(program, config, setting, "yes");
        return;
    case BATON_OFF:
        set_text(program, config, setting, "no");
        return;
    }
    bt_add_line(&program->mistakes, "worker %s: %s: %d is not BATON_ON, BATON_OFF or BATON_DEFAULT", config->name,
                setting, (int) value);
}

baton_worker *baton_worker_create(const char *address, const baton_worker_options *options)
{
    start_program *program = get_program();
    baton_worker *worker = add_worker(program, options->name);
    bt_worker_config *config = config_of(program, worker);

    set_text(program, config, "listen", address);
    set_number(program, config, "count", options->count);
    set_text(program, config, "module", options->module);
    set_text(program, config, "module_files", options->module_files);
    set_text(program, config, "user", options->user);
    set_text(program, config, "group", options->group);
    set_number(program, config, "backlog", options->backlog);
    set_switch(program, config, "reuse_port", options->reuse_port);
    set_switch(program, config, "reloadable", options->reloadable);
    worker->callbacks = options->callbacks;
    worker->on_worker_exit = options->on_worker_exit;
    return worker;
}

int baton_worker_set(baton_worker *worker, const char *setting, const char *value)
{
    start_program *program = get_program();
    bt_worker_config *config = config_of(program, worker);
    if (!config || !setting || !value) {
        bt_add_line(&program->mistakes, "baton_worker_set: NULL or not a worker of this program");
        return -EINVAL;
    }
    return set_worker(program, config, setting, value);
}

int baton_set(const char *setting, const char *value)
{
    start_program *program = get_program();
    if (!setting || !value) {
        bt_add_line(&program->mistakes, "baton_set: NULL is no setting and no value");
        return -EINVAL;
    }
    char why[384];
    int error = bt_config_set_master(program->service.config, setting, value, why, sizeof(why));
    if (error < 0)
        bt_add_line(&program->mistakes, "%s", why);
    return error;
}

void baton_on_master_reload(void (*callback)(void))
{
    get_program()->service.on_master_reload = callback;
}

void baton_on_master_stop(void (*callback)(void))
{
    get_program()->service.on_master_stop = callback;
}

bt_service *bt_start_program_service(const char **mistakes)
{
    start_program *program = get_program();
    *mistakes = program->mistakes;
    return &program->service;
}

int bt_start_program_check(char **errors)
{
    const bt_service *service = &get_program()->service;
    int result = 0;
    for (size_t i = 0; i < service->config->worker_count; i++) {
        const baton_worker *worker = service->workers[i];
        const bt_worker_config *config = worker->config;
        bool loads_code = config->module || worker->callbacks.on_worker_start;
        if (!config->listen || strcmp(config->address.scheme, "http") != 0 || loads_code ||
            worker->callbacks.on_request)
            continue;
        bt_add_line(errors, "worker %s: listens on %s but has neither on_request nor a module", config->name,
                    config->listen);
        result = -EINVAL;
    }
    return result;
}

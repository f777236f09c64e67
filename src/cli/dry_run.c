/* cli/dry_run.c: the difference between a configuration and the service that runs.
 * Must not know what is right or wrong: both sides have been checked before. */
#include <cli/dry_run.h>

#include <app/compare.h>
#include <cli/client.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the master said of one worker, or of its own section. */
typedef struct running {
    const json_t *config;      /* the answer to "config" */
    const json_t *generations; /* the answer to "generations" */
} running;

/* Where the lines of a comparison go, and what stands in front of each. */
typedef struct sink {
    char *now;   /* lines: what a reload does */
    char *later; /* what it does not do */
    char prefix[192];
    bool waits; /* of a worker that is not reloadable */
} sink;

static void add_change(sink *to, const char *text)
{
    bt_add_line(to->waits ? &to->later : &to->now, "  %s: %s", to->prefix, text);
}

static void on_difference(const bt_difference *found, void *arg)
{
    sink *to = arg;
    const char *section = found->worker ? to->prefix : "[baton]";
    bool is_later = to->waits || found->setting->needs_restart;
    bt_add_line(is_later ? &to->later : &to->now, "  %s%s%s: %s -> %s%s", section, found->worker ? ": " : " ",
                found->setting->name, found->old_text, found->new_text,
                found->setting->needs_restart ? ": takes effect at the next restart" : "");
}

static const json_t *find_by_number(const json_t *list, const char *key, json_int_t wanted)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (json_integer_value(json_object_get(item, key)) == wanted)
            return item;
    }
    return NULL;
}

static const json_t *find_by_name(const json_t *list, const char *wanted)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, wanted) == 0)
            return item;
    }
    return NULL;
}

/* The configuration of a generation; NULL when the master has not kept it or this program cannot read it (a master of
 * another version). */
static bt_config *parse_generation(const running *from, json_int_t generation, const bt_config *like)
{
    const json_t *found = find_by_number(json_object_get(from->config, "texts"), "generation", generation);
    const char *text = json_string_value(json_object_get(found, "text"));
    char *errors = NULL;
    bt_config *config = text ? bt_config_parse(text, like, &errors) : NULL;
    free(errors);
    return config;
}

/* True when the module on disk is not the one that the worker's generation was made of. */
static bool is_module_changed(const running *from, json_int_t generation, const char *worker,
                              const bt_module_copy *module)
{
    const json_t *found = find_by_number(from->generations, "number", generation);
    const json_t *serving = find_by_name(json_object_get(found, "workers"), worker);
    const char *sha256 = json_string_value(json_object_get(serving, "sha256"));
    return sha256 && module->sha256[0] && strcmp(sha256, module->sha256) != 0;
}

static void note_module(const bt_difference *found, void *arg)
{
    bool *is_other_file = arg;
    *is_other_file = *is_other_file || strcmp(found->setting->name, "module") == 0;
}

static void compare_worker(const running *from, const json_t *serving, const bt_config *config,
                           const bt_worker_config *worker, const bt_module_copy *module, sink *to)
{
    json_int_t generation = json_integer_value(json_object_get(serving, "generation"));
    bt_config *before = parse_generation(from, generation, config);
    const bt_worker_config *old_worker = before ? bt_config_find_worker(before, worker->name) : NULL;
    bool is_other_file = false;

    /* What it runs with decides whether a reload of everything takes the worker along. */
    to->waits = !(old_worker ? old_worker : worker)->reloadable;
    snprintf(to->prefix, sizeof(to->prefix), "worker %s", worker->name);
    if (to->waits)
        snprintf(to->prefix, sizeof(to->prefix), "worker %s: reloadable = no: waits for `reload %s`", worker->name,
                 worker->name);
    if (old_worker) {
        bt_compare_workers(old_worker, worker, note_module, &is_other_file);
        bt_compare_workers(old_worker, worker, on_difference, to);
    }
    if (!is_other_file && is_module_changed(from, generation, worker->name, module))
        add_change(to, "module: changed");
    bt_config_free(before);
}

static void compare_workers(const running *from, const bt_config *config, const bt_module_copy *modules, sink *to)
{
    const json_t *workers = json_object_get(from->config, "workers");
    for (size_t i = 0; i < config->worker_count; i++) {
        const bt_worker_config *worker = config->workers[i];
        const json_t *serving = find_by_name(workers, worker->name);
        if (serving)
            compare_worker(from, serving, config, worker, &modules[i], to);
        else if (worker->listen)
            bt_add_line(&to->now, "  worker %s: new, listens on %s", worker->name, worker->listen);
        else
            bt_add_line(&to->now, "  worker %s: new", worker->name);
    }

    size_t i;
    const json_t *worker;
    json_array_foreach(workers, i, worker)
    {
        const char *name = json_string_value(json_object_get(worker, "name"));
        if (name && !bt_config_find_worker(config, name))
            bt_add_line(&to->now, "  worker %s: removed", name);
    }
}

/* The master itself runs with what was read last. */
static void compare_master(const running *from, const bt_config *config, sink *to)
{
    json_int_t newest = 0;
    size_t i;
    const json_t *text;
    json_array_foreach(json_object_get(from->config, "texts"), i, text)
    {
        json_int_t generation = json_integer_value(json_object_get(text, "generation"));
        newest = generation > newest ? generation : newest;
    }
    bt_config *before = parse_generation(from, newest, config);
    to->waits = false;
    if (before)
        bt_compare_masters(&before->master, &config->master, on_difference, to);
    bt_config_free(before);
}

static void print_comparison(FILE *out, const running *from, const bt_config *config, const bt_module_copy *modules)
{
    sink to = {0};
    const char *file = json_string_value(json_object_get(from->config, "file"));
    if (file && config->file && strcmp(file, config->file) != 0) {
        fprintf(out, "what runs was started with %s, and a reload reads that\n", file);
        return;
    }
    compare_master(from, config, &to);
    compare_workers(from, config, modules, &to);
    fprintf(out, "%s%s%s", to.now ? "a reload would change:\n" : "a reload would change nothing\n",
            to.now ? to.now : "", to.later ? to.later : "");
    free(to.now);
    free(to.later);
}

/* The member `key` of the answer, which the caller owns. NULL with words in `why` and the reason in *error. */
static json_t *query(const char *command, const char *key, const char *pid_file, int *error, char *why, size_t size)
{
    json_t *done = bt_client_query(command, pid_file, error, why, size);
    if (!done)
        return NULL;
    json_t *answer = json_incref(json_object_get(done, key));
    if (bt_client_code(done) != 0 || !answer) {
        snprintf(why, size, "%s", *bt_client_message(done) ? bt_client_message(done) : "no answer");
        *error = -EPROTO;
        json_decref(answer);
        answer = NULL;
    }
    json_decref(done);
    return answer;
}

int bt_dry_run(FILE *out, const bt_config *config, const bt_module_copy *modules, char *why, size_t size)
{
    int error;
    const char *pid_file = config->master.pid_file;
    json_t *runs = query("config", "config", pid_file, &error, why, size);
    json_t *generations = runs ? query("generations", "generations", pid_file, &error, why, size) : NULL;
    if (generations)
        print_comparison(out, &(running){.config = runs, .generations = generations}, config, modules);
    bool is_done = generations || error == -ESRCH;
    json_decref(runs);
    json_decref(generations);
    return is_done ? 0 : error;
}

/* app/config_json.c: a configuration as JSON and back, complete and exact: what one image of the master leaves to the
 * next. Must not know any setting by name: the tables have them all. */
#include <app/config_json.h>

#include <app/settings.h>
#include <errno.h>
#include <proc/json_text.h>
#include <stdlib.h>
#include <string.h>

static bool is_set(const bt_setting *setting, const void *base)
{
    const char *const *string = (const void *) ((const char *) base + setting->offset);
    switch (setting->type) {
    case BT_SETTING_STRING:
    case BT_SETTING_PATH:
    case BT_SETTING_PATHS:
    case BT_SETTING_LISTEN:
        return *string != NULL;
    case BT_SETTING_BOOL:
    case BT_SETTING_INT:
    case BT_SETTING_TIME:
    case BT_SETTING_SIZE:
    case BT_SETTING_CHOICE:
        return true;
    }
    return false;
}

static json_t *table_to_json(const bt_setting *table, const void *base)
{
    json_t *object = json_object();
    for (const bt_setting *setting = table; setting->name; setting++) {
        char text[BT_SETTING_TEXT];
        if (!is_set(setting, base))
            continue;
        if (json_object_set_new(object, setting->name, bt_json_bytes(bt_setting_text(setting, base, text))) < 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *bytes_or_null(const char *text)
{
    return text == NULL ? json_null() : bt_json_bytes(text);
}

json_t *bt_config_to_json(const bt_config *config)
{
    json_t *workers = json_array();
    for (size_t i = 0; i < config->worker_count; i++)
        workers = bt_json_append(workers, json_pack("{s:s, s:o}", "name", config->workers[i]->name, "settings",
                                                    table_to_json(bt_worker_settings, config->workers[i])));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "file", bytes_or_null(config->file), "base_dir",
                     bt_json_bytes(config->base_dir), "text", bytes_or_null(config->text), "master",
                     table_to_json(bt_master_settings, &config->master), "workers", workers);
}

/* How a configuration is read: what an older program left must be understood. Back from a newer one, a value that only
 * that one knows must not be what ends the service: the default has to do until its processes have been replaced. */
typedef struct reader {
    bt_config *config;
    bool is_lenient;
    char *why;
    size_t size;
} reader;

static int fail(const reader *in, int err, const char *text)
{
    snprintf(in->why, in->size, "%s", text);
    return err;
}

/* `worker` NULL: of the master. A setting that is unknown here was of a newer program, and has no meaning. */
static int set(const reader *in, bt_worker_config *worker, const char *name, const json_t *value)
{
    if (bt_setting_find(worker == NULL ? bt_master_settings : bt_worker_settings, name) == NULL)
        return 0;
    char *text = bt_json_bytes_dup(value);
    if (text == NULL)
        return fail(in, -EPROTO, "a setting that is no text, or out of memory");
    int err = worker == NULL ? bt_config_set_master(in->config, name, text, in->why, in->size)
                             : bt_config_set_worker(in->config, worker, name, text, in->why, in->size);
    free(text);
    return in->is_lenient ? 0 : err;
}

static int set_all(const reader *in, bt_worker_config *worker, json_t *settings)
{
    const char *name;
    json_t *value;
    int err = json_is_object(settings) ? 0 : fail(in, -EPROTO, "a section without settings");
    json_object_foreach(settings, name, value)
    {
        if (err == 0)
            err = set(in, worker, name, value);
    }
    return err;
}

static int add_worker(const reader *in, const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    if (name == NULL)
        return fail(in, -EPROTO, "a worker without a name");
    int err = bt_worker_name_check(name, in->why, in->size);
    if (err < 0)
        return err;
    bt_worker_config *worker = bt_config_add_worker(in->config, name);
    if (worker == NULL)
        return fail(in, -ENOMEM, "out of memory");
    return set_all(in, worker, json_object_get(object, "settings"));
}

static int read_text(const reader *in, const json_t *object, const char *key, char **out)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value))
        return 0;
    *out = bt_json_bytes_dup(value);
    return *out == NULL ? fail(in, -EPROTO, "a file without a name or text, or out of memory") : 0;
}

static int read_config(const reader *in, const json_t *object)
{
    size_t i;
    const json_t *worker;
    int err = read_text(in, object, "file", &in->config->file);
    if (err == 0)
        err = read_text(in, object, "text", &in->config->text);
    if (err == 0)
        err = set_all(in, NULL, json_object_get(object, "master"));
    json_array_foreach(json_object_get(object, "workers"), i, worker)
    {
        if (err == 0)
            err = add_worker(in, worker);
    }
    return err;
}

static bt_config *from_json(const json_t *object, bool is_lenient, char *why, size_t size)
{
    char *base_dir = bt_json_bytes_dup(json_object_get(object, "base_dir"));
    reader in = {.is_lenient = is_lenient, .why = why, .size = size};
    in.config = base_dir == NULL ? NULL : bt_config_new(base_dir);
    free(base_dir);
    if (in.config == NULL) {
        fail(&in, -EPROTO, "no base_dir, or out of memory");
        return NULL;
    }
    if (read_config(&in, object) == 0)
        return in.config;
    bt_config_free(in.config);
    return NULL;
}

bt_config *bt_config_from_json(const json_t *object, char *why, size_t size)
{
    return from_json(object, false, why, size);
}

bt_config *bt_config_from_json_lenient(const json_t *object, char *why, size_t size)
{
    return from_json(object, true, why, size);
}

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
        if (is_set(setting, base))
            json_object_set_new(object, setting->name, bt_json_text(bt_setting_text(setting, base, text)));
    }
    return object;
}

json_t *bt_config_to_json(const bt_config *config)
{
    json_t *workers = json_array();
    for (size_t i = 0; i < config->worker_count; i++)
        json_array_append_new(workers, json_pack("{s:s, s:o}", "name", config->workers[i]->name, "settings",
                                                 table_to_json(bt_worker_settings, config->workers[i])));
    return json_pack("{s:s?, s:s, s:s?, s:o, s:o}", "file", config->file, "base_dir", config->base_dir, "text",
                     config->text, "master", table_to_json(bt_master_settings, &config->master), "workers", workers);
}

static void say(char *why, size_t size, const char *text)
{
    snprintf(why, size, "%s", text);
}

/* A setting that is unknown here was of a newer program; going back to an older one, it has no meaning. */
static int set_master(bt_config *config, json_t *settings, char *why, size_t size)
{
    const char *name;
    json_t *value;
    json_object_foreach(settings, name, value)
    {
        const char *text = json_string_value(value);
        if (bt_setting_find(bt_master_settings, name) == NULL)
            continue;
        if (text == NULL || bt_config_set_master(config, name, text, why, size) < 0)
            return -EPROTO;
    }
    return 0;
}

static int set_worker(bt_config *config, const json_t *object, char *why, size_t size)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    bt_worker_config *worker = name == NULL ? NULL : bt_config_add_worker(config, name);
    if (worker == NULL) {
        say(why, size, "a worker without a name, or out of memory");
        return -EPROTO;
    }
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(object, "settings"), key, value)
    {
        const char *text = json_string_value(value);
        if (bt_setting_find(bt_worker_settings, key) == NULL)
            continue;
        if (text == NULL || bt_config_set_worker(config, worker, key, text, why, size) < 0)
            return -EPROTO;
    }
    return 0;
}

static int copy_text(char **out, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    *out = text == NULL ? NULL : strdup(text);
    return text != NULL && *out == NULL ? -ENOMEM : 0;
}

bt_config *bt_config_from_json(const json_t *object, char *why, size_t size)
{
    const char *base_dir = json_string_value(json_object_get(object, "base_dir"));
    bt_config *config = base_dir == NULL ? NULL : bt_config_new(base_dir);
    if (config == NULL) {
        say(why, size, "no base_dir, or out of memory");
        return NULL;
    }
    int err = copy_text(&config->file, object, "file");
    if (err == 0)
        err = copy_text(&config->text, object, "text");
    if (err < 0)
        say(why, size, "out of memory");
    else
        err = set_master(config, json_object_get(object, "master"), why, size);
    size_t i;
    const json_t *worker;
    json_array_foreach(json_object_get(object, "workers"), i, worker)
    {
        if (err == 0)
            err = set_worker(config, worker, why, size);
    }
    if (err == 0)
        return config;
    bt_config_free(config);
    return NULL;
}

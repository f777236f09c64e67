/* app/compare.c: the differences between two configurations.
 * Must not know any setting by name: the tables have them all. */
#include <app/compare.h>

#include <string.h>

static bool is_same_string(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    if (!*left || !*right)
        return *left == *right;
    return strcmp(*left, *right) == 0;
}

static bool is_same(const bt_setting *setting, const void *a, const void *b)
{
    switch (setting->type) {
    case BT_SETTING_STRING:
    case BT_SETTING_PATH:
    case BT_SETTING_PATHS:
    case BT_SETTING_LISTEN:
        return is_same_string(a, b);
    case BT_SETTING_BOOL:
        return memcmp(a, b, sizeof(bool)) == 0;
    case BT_SETTING_INT:
    case BT_SETTING_TIME:
    case BT_SETTING_SIZE:
        return memcmp(a, b, sizeof(int64_t)) == 0;
    case BT_SETTING_CHOICE:
        return memcmp(a, b, sizeof(int)) == 0;
    }
    return false;
}

static size_t compare_tables(const bt_setting *table, const void *old_base, const void *new_base,
                             const bt_worker_config *worker, bt_on_difference on_difference, void *arg)
{
    size_t count = 0;
    for (const bt_setting *setting = table; setting->name; setting++) {
        const char *old_field = (const char *) old_base + setting->offset;
        const char *new_field = (const char *) new_base + setting->offset;
        if (is_same(setting, old_field, new_field))
            continue;
        char old_text[BT_SETTING_TEXT];
        char new_text[BT_SETTING_TEXT];
        const bt_difference difference = {
            .kind = BT_DIFFERENT_SETTING,
            .worker = worker,
            .setting = setting,
            .old_text = bt_setting_text(setting, old_base, old_text),
            .new_text = bt_setting_text(setting, new_base, new_text),
        };
        on_difference(&difference, arg);
        count++;
    }
    return count;
}

size_t bt_compare_masters(const bt_master_config *old_master, const bt_master_config *new_master,
                          bt_on_difference on_difference, void *arg)
{
    return compare_tables(bt_master_settings, old_master, new_master, NULL, on_difference, arg);
}

size_t bt_compare_workers(const bt_worker_config *old_worker, const bt_worker_config *new_worker,
                          bt_on_difference on_difference, void *arg)
{
    return compare_tables(bt_worker_settings, old_worker, new_worker, new_worker, on_difference, arg);
}

size_t bt_compare_configs(const bt_config *old_config, const bt_config *new_config, bt_on_difference on_difference,
                          void *arg)
{
    size_t count = bt_compare_masters(&old_config->master, &new_config->master, on_difference, arg);
    for (size_t i = 0; i < new_config->worker_count; i++) {
        const bt_worker_config *worker = new_config->workers[i];
        const bt_worker_config *before = bt_config_find_worker(old_config, worker->name);
        if (before) {
            count += bt_compare_workers(before, worker, on_difference, arg);
            continue;
        }
        on_difference(&(bt_difference){.kind = BT_NEW_WORKER, .worker = worker}, arg);
        count++;
    }
    for (size_t i = 0; i < old_config->worker_count; i++) {
        const bt_worker_config *worker = old_config->workers[i];
        if (bt_config_find_worker(new_config, worker->name))
            continue;
        on_difference(&(bt_difference){.kind = BT_REMOVED_WORKER, .worker = worker}, arg);
        count++;
    }
    return count;
}

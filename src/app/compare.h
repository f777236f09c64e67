/* app/compare.h: what differs between two configurations, setting by setting through the tables.
 * Knows neither who runs with them nor what a difference leads to. */
#ifndef BT_APP_COMPARE_H
#define BT_APP_COMPARE_H

#include <app/settings.h>

typedef enum bt_difference_kind {
    BT_DIFFERENT_SETTING,
    BT_NEW_WORKER,     /* only `setting`, old_text and new_text are missing */
    BT_REMOVED_WORKER, /* the same */
} bt_difference_kind;

/* Everything is borrowed, the texts until the callback returns. */
typedef struct bt_difference {
    bt_difference_kind kind;
    const bt_worker_config *worker; /* of the new configuration, a removed one of the old; NULL: section [baton] */
    const bt_setting *setting;
    const char *old_text; /* in the file's syntax; "not set" */
    const char *new_text;
} bt_difference;

typedef void (*bt_on_difference)(const bt_difference *difference, void *arg);

/* Returns how many there were. Values count, not how they are written: 10m is 10240k. */
size_t bt_compare_masters(const bt_master_config *old_master, const bt_master_config *new_master,
                          bt_on_difference on_difference, void *arg);
size_t bt_compare_workers(const bt_worker_config *old_worker, const bt_worker_config *new_worker,
                          bt_on_difference on_difference, void *arg);

/* Section [baton], then the workers in the order of `new_config`, then the removed ones. */
size_t bt_compare_configs(const bt_config *old_config, const bt_config *new_config, bt_on_difference on_difference,
                          void *arg);

#endif

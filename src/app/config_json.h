/* app/config_json.h: a configuration as JSON and back. */
#ifndef BT_APP_CONFIG_JSON_H
#define BT_APP_CONFIG_JSON_H

#include <jansson.h>
#include <proc/config.h>

/* The hooks bt_service.config_to_json and config_from_json. A new object, NULL when out of memory; and a new config,
 * NULL with words in `why` when the object is not one of ours. */
json_t *bt_config_to_json(const bt_config *config);
bt_config *bt_config_from_json(const json_t *object, char *why, size_t size);

/* The same, but values that are refused here are left at their defaults. */
bt_config *bt_config_from_json_lenient(const json_t *object, char *why, size_t size);

#endif

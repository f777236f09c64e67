/* proc/json_text.h: text of unknown origin (a loader's message, a path) as a JSON string.
 * JSON is UTF-8 and jansson refuses anything else; a line that is missing is worse than a '?' in it. */
#ifndef BT_PROC_JSON_TEXT_H
#define BT_PROC_JSON_TEXT_H

#include <base/alloc.h>
#include <jansson.h>

static inline json_t *bt_json_text(const char *text)
{
    json_t *string = json_string(text);
    char *copy = string == NULL ? bt_strdup(text) : NULL;
    if (copy == NULL)
        return string;
    for (char *at = copy; *at != '\0'; at++) {
        if ((unsigned char) *at >= 0x80)
            *at = '?';
    }
    string = json_string(copy);
    free(copy);
    return string;
}

#endif

/* proc/json_text.h: text of unknown origin (a loader's message, a path) as a JSON string.
 * JSON is UTF-8 and jansson refuses anything else; a line that is missing is worse than a '?' in it. */
#ifndef BT_PROC_JSON_TEXT_H
#define BT_PROC_JSON_TEXT_H

#include <base/alloc.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The same without a loss: what is not UTF-8 becomes {"bytes":"6261..."}. */
static inline json_t *bt_json_bytes(const char *text)
{
    json_t *string = json_string(text);
    if (string != NULL)
        return string;
    size_t len = strlen(text);
    char *digits = bt_malloc(2 * len + 1);
    if (digits == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++)
        snprintf(digits + 2 * i, 3, "%02x", (unsigned char) text[i]);
    json_t *object = json_pack("{s:s}", "bytes", digits);
    free(digits);
    return object;
}

/* What bt_json_bytes() was made of, malloc'ed. NULL: it is no text, or out of memory. */
static inline char *bt_json_bytes_dup(const json_t *value)
{
    const char *digits = json_string_value(json_object_get(value, "bytes"));
    if (digits == NULL)
        return json_is_string(value) ? bt_strdup(json_string_value(value)) : NULL;
    size_t len = strlen(digits) / 2;
    char *text = bt_malloc(len + 1);
    for (size_t i = 0; text != NULL && i < len; i++) {
        char *end;
        const char pair[] = {digits[2 * i], digits[2 * i + 1], '\0'};
        text[i] = (char) strtoul(pair, &end, 16);
        if (end != pair + 2) {
            free(text);
            return NULL;
        }
    }
    if (text != NULL)
        text[len] = '\0';
    return text;
}

/* Adds `value`, which is taken, to `array`. NULL, and the array is gone, when either is NULL: something is missing, and
 * who makes the whole notices. */
static inline json_t *bt_json_append(json_t *array, json_t *value)
{
    if (array != NULL && value != NULL && json_array_append_new(array, value) == 0)
        return array;
    if (array == NULL)
        json_decref(value);
    json_decref(array);
    return NULL;
}

#endif

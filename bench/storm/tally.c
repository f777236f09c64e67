/* tally.c: everything a client can notice, counted; the names of the versions that answered.
 * Knows nothing of sockets. */
#include "tally.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_name(const storm_name *name, const char *text, size_t len)
{
    return name->len == len && memcmp(name->text, text, len) == 0;
}

void storm_tally_version(storm_tally *tally, const char *text, size_t len)
{
    if (len > STORM_NAME_SIZE)
        len = STORM_NAME_SIZE;
    if (tally->name_count > 0 && is_name(&tally->names[tally->last_name], text, len)) {
        tally->names[tally->last_name].count++;
        return;
    }
    for (size_t i = 0; i < tally->name_count; i++) {
        if (!is_name(&tally->names[i], text, len))
            continue;
        tally->names[i].count++;
        tally->last_name = i;
        return;
    }
    if (tally->name_count == STORM_NAMES_MAX)
        return;
    if (tally->names == NULL)
        tally->names = calloc(STORM_NAMES_MAX, sizeof(*tally->names));
    if (tally->names == NULL)
        return;
    storm_name *name = &tally->names[tally->name_count];
    memcpy(name->text, text, len);
    name->len = len;
    name->count = 1;
    tally->last_name = tally->name_count++;
}

void storm_tally_note(storm_tally *tally, const char *format, ...)
{
    if (tally->note_count == STORM_NOTES_MAX)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(tally->notes[tally->note_count++], STORM_NOTE_SIZE, format, args);
    va_end(args);
}

int storm_tally_is_clean(const storm_tally *tally)
{
    return tally->lost + tally->refused + tally->reset + tally->closed_idle + tally->told_to_close + tally->bad == 0 &&
           tally->kept == tally->keep_total;
}

void storm_tally_free(storm_tally *tally)
{
    free(tally->names);
    tally->names = NULL;
}

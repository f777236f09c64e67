/* cli/progress.c: the steps of a roll on the screen.
 * Must not know how they came here. */
#include <cli/progress.h>

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A terminal that can move its cursor and has room to do so. */
static bool can_redraw(FILE *out, struct winsize *window)
{
    const char *type = getenv("TERM");
    if (!isatty(fileno(out)) || type == NULL || strcmp(type, "dumb") == 0)
        return false;
    return ioctl(fileno(out), TIOCGWINSZ, window) == 0 && window->ws_row >= 4 && window->ws_col >= 20;
}

void bt_progress_init(bt_progress *progress, FILE *out)
{
    struct winsize window;
    *progress = (bt_progress){.out = out};
    if (!can_redraw(out, &window))
        return;
    progress->redraws = true;
    progress->columns = window.ws_col;
    progress->most_rows = (size_t) window.ws_row - 2;
    if (progress->most_rows > BT_PROGRESS_ROWS)
        progress->most_rows = BT_PROGRESS_ROWS;
}

static const char *text_of(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    return text ? text : "";
}

/* "web[0]: ready, pid 4712, generation 2, detail"; a step of the whole service has slot -1 and no worker. */
static void describe(const json_t *event, char *out, size_t size)
{
    json_int_t slot = json_integer_value(json_object_get(event, "slot"));
    json_int_t pid = json_integer_value(json_object_get(event, "pid"));
    json_int_t generation = json_integer_value(json_object_get(event, "generation"));
    const char *worker = text_of(event, "worker");
    const char *detail = text_of(event, "detail");
    char who[96] = "";
    char process[40] = "";
    char number[48] = "";

    if (*worker && slot >= 0)
        snprintf(who, sizeof(who), "%s[%lld]: ", worker, (long long) slot);
    else if (*worker)
        snprintf(who, sizeof(who), "%s: ", worker);
    if (pid > 0)
        snprintf(process, sizeof(process), ", pid %lld", (long long) pid);
    if (generation > 0)
        snprintf(number, sizeof(number), ", generation %lld", (long long) generation);
    snprintf(out, size, "%s%s%s%s%s%s", who, text_of(event, "step"), process, number, *detail ? ": " : "", detail);
}

/* Place of the slot's line; a new one is appended. A full screen is left behind and a new block begun below it: lines
 * that have scrolled away cannot be redrawn. */
static size_t row_of(bt_progress *progress, const char *worker, int slot, bool *is_new)
{
    for (size_t i = 0; i < progress->count; i++) {
        if (progress->rows[i].slot == slot && strcmp(progress->rows[i].worker, worker) == 0) {
            *is_new = false;
            return i;
        }
    }
    if (progress->count == progress->most_rows)
        progress->count = 0;
    bt_progress_row *row = &progress->rows[progress->count];
    snprintf(row->worker, sizeof(row->worker), "%s", worker);
    row->slot = slot;
    *is_new = true;
    return progress->count++;
}

void bt_progress_show(const json_t *event, void *arg)
{
    bt_progress *progress = arg;
    char text[512];
    describe(event, text, sizeof(text));
    if (!progress->redraws) {
        fprintf(progress->out, "%s\n", text);
        fflush(progress->out);
        return;
    }

    bool is_new;
    int slot = (int) json_integer_value(json_object_get(event, "slot"));
    size_t row = row_of(progress, text_of(event, "worker"), slot, &is_new);
    int most = progress->columns - 1; /* a wrapped line would take two rows */
    if (is_new)
        fprintf(progress->out, "%.*s\n", most, text);
    else
        fprintf(progress->out, "\033[%zuA\r\033[K%.*s\033[%zuB\r", progress->count - row, most, text,
                progress->count - row);
    fflush(progress->out);
}

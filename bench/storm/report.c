/* report.c: what was counted, as a line, as JSON, and live.
 * Knows nothing of connections. */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>

static double ms_at(const storm_tally *tally, double fraction)
{
    return (double) storm_histogram_at(&tally->latency, fraction) / 1e6;
}

static void print_counts(FILE *out, const storm_tally *tally, uint64_t kept, uint64_t total)
{
    fprintf(out,
            "requests=%" PRIu64 " lost=%" PRIu64 " refused=%" PRIu64 " reset=%" PRIu64 " closed_idle=%" PRIu64
            " told_to_close=%" PRIu64 " bad=%" PRIu64 " kept=%" PRIu64 "/%" PRIu64 " versions=%zu",
            tally->requests, tally->lost, tally->refused, tally->reset, tally->closed_idle, tally->told_to_close,
            tally->bad, kept, total, tally->name_count);
}

void storm_report_line(const storm_tally *tally)
{
    print_counts(stdout, tally, tally->kept, tally->keep_total);
    printf(" p50=%.2fms p99=%.2fms\n", ms_at(tally, 0.5), ms_at(tally, 0.99));
}

/* A body's bytes above ASCII are shown as Latin-1, so that the output is JSON whatever the server sent. */
static void print_string(const char *text, size_t len)
{
    putchar('"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char) text[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ' || c >= 0x7f)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_number(const char *name, uint64_t value)
{
    printf(", \"%s\": %" PRIu64, name, value);
}

void storm_report_json(const storm_tally *tally, double seconds)
{
    printf("{\"duration\": %.3f", seconds);
    print_number("requests", tally->requests);
    print_number("one_shots", tally->one_shots);
    print_number("lost", tally->lost);
    print_number("refused", tally->refused);
    print_number("reset", tally->reset);
    print_number("closed_idle", tally->closed_idle);
    print_number("told_to_close", tally->told_to_close);
    print_number("bad", tally->bad);
    print_number("kept", tally->kept);
    print_number("connections", tally->keep_total);
    print_number("idle_kept", tally->idle_kept);
    print_number("idle", tally->idle_total);
    print_number("versions", tally->name_count);
    printf(", \"version_names\": {");
    for (size_t i = 0; i < tally->name_count; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        print_string(tally->names[i].text, tally->names[i].len);
        printf(": %" PRIu64, tally->names[i].count);
    }
    printf("}, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f",
           ms_at(tally, 0.5), ms_at(tally, 0.9), ms_at(tally, 0.99), ms_at(tally, 0.999),
           (double) tally->latency.max / 1e6);
    printf(", \"failures\": [");
    for (size_t i = 0; i < tally->note_count; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        size_t len = 0;
        while (len < STORM_NOTE_SIZE && tally->notes[i][len] != '\0')
            len++;
        print_string(tally->notes[i], len);
    }
    printf("]}\n");
}

void storm_report_notes(const storm_tally *tally)
{
    for (size_t i = 0; i < tally->note_count; i++)
        fprintf(stderr, "storm: %s\n", tally->notes[i]);
}

void storm_report_live(const storm_run *run, bool is_terminal, double seconds, double rate)
{
    const storm_options *options = run->options;
    fprintf(stderr, "%st=%.1f rate=%.0f ", is_terminal ? "\r" : "", seconds, rate);
    print_counts(stderr, &run->tally, storm_run_kept(run), (uint64_t) options->connections + (uint64_t) options->idle);
    fputs(is_terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
}

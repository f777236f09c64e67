/* storm.c: keeps an HTTP/1.1 server busy and counts whatever a client can notice.
 * Knows nothing of the server it is pointed at; see docs/benchmarks.md for what the counts mean. */
#include "storm/report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const double SECOND = 1e9; /* in ns */

/* What happens beside the load: signals, the clock, progress. */
struct watchman {
    int signals;
    bool is_ready;
    bool is_terminal;
    uint64_t live_interval, next_live; /* ns; interval 0: no progress shown */
    uint64_t live_at, live_requests;   /* when and what was shown last */
    uint64_t stop_at;                  /* 0: never */
    uint64_t give_up_at;               /* while draining */
};

static int watch_signals(storm_run *run)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (fd < 0 || epoll_ctl(run->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    return fd;
}

static void announce_ready(struct watchman *watchman, const storm_run *run)
{
    const storm_options *options = run->options;

    if (watchman->is_ready || !storm_run_is_ready(run))
        return;
    watchman->is_ready = true;
    if (!options->is_quiet)
        fprintf(stderr, "ready\n");
    if (options->ready_file == NULL)
        return;
    int fd = open(options->ready_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        fprintf(stderr, "storm: %s: %s\n", options->ready_file, strerror(errno));
    else
        close(fd);
}

static void show_live(struct watchman *watchman, const storm_run *run)
{
    if (watchman->live_interval == 0 || run->now < watchman->next_live)
        return;
    double passed = (double) (run->now - watchman->live_at) / SECOND;
    double rate = passed > 0 ? (double) (run->tally.requests - watchman->live_requests) / passed : 0;
    storm_report_live(run, watchman->is_terminal, (double) (run->now - run->started_at) / SECOND, rate);
    watchman->live_at = run->now;
    watchman->live_requests = run->tally.requests;
    watchman->next_live = run->now + watchman->live_interval;
}

/* The first signal ends the run politely, the second at once. */
static void take_signals(struct watchman *watchman, storm_run *run)
{
    struct signalfd_siginfo info;
    while (read(watchman->signals, &info, sizeof(info)) == (ssize_t) sizeof(info)) {
        if (run->phase == STORM_RUNNING)
            storm_run_drain(run);
        else
            storm_run_end(run);
    }
}

static int time_left(const struct watchman *watchman, const storm_run *run)
{
    uint64_t due = run->now + 1000000000u;
    if (watchman->stop_at != 0 && run->phase == STORM_RUNNING && watchman->stop_at < due)
        due = watchman->stop_at;
    if (watchman->give_up_at != 0 && watchman->give_up_at < due)
        due = watchman->give_up_at;
    if (watchman->live_interval != 0 && watchman->next_live < due)
        due = watchman->next_live;
    return due <= run->now ? 0 : (int) ((due - run->now + 999999) / 1000000);
}

static void watch_clock(struct watchman *watchman, storm_run *run)
{
    uint64_t grace = (uint64_t) run->options->grace_ms * 1000000u;

    if (run->phase == STORM_RUNNING && watchman->stop_at != 0 && run->now >= watchman->stop_at)
        storm_run_drain(run);
    if (run->phase == STORM_DRAINING && watchman->give_up_at == 0)
        watchman->give_up_at = run->now + grace;
    if (run->phase == STORM_DRAINING && run->now >= watchman->give_up_at)
        storm_run_end(run);
}

static void watch(struct watchman *watchman, storm_run *run)
{
    const storm_options *options = run->options;

    watchman->is_terminal = isatty(STDERR_FILENO);
    if (options->duration > 0)
        watchman->stop_at = run->started_at + (uint64_t) (options->duration * SECOND);
    if (options->is_live && !options->is_quiet) {
        int interval = options->live_interval_ms > 0 ? options->live_interval_ms : watchman->is_terminal ? 200 : 1000;
        watchman->live_interval = (uint64_t) interval * 1000000u;
        watchman->live_at = run->started_at;
        watchman->next_live = run->started_at + watchman->live_interval;
    }
    while (run->phase != STORM_ENDED) {
        if (storm_run_step(run, time_left(watchman, run)))
            take_signals(watchman, run);
        announce_ready(watchman, run);
        show_live(watchman, run);
        watch_clock(watchman, run);
    }
    if (watchman->live_interval != 0 && watchman->is_terminal)
        fputs("\r\033[K", stderr);
}

static int report(const storm_run *run)
{
    const storm_tally *tally = &run->tally;

    if (!run->options->is_quiet)
        storm_report_notes(tally);
    if (run->options->is_json)
        storm_report_json(tally, (double) (run->now - run->started_at) / SECOND);
    else
        storm_report_line(tally);
    /* A run without any answer has proved nothing. */
    return storm_tally_is_clean(tally) && tally->requests > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static storm_run run; /* the histogram is too large for the stack's taste */
    struct watchman watchman = {0};
    storm_options options;

    int code = storm_options_parse(&options, argc, argv);
    if (code >= 0)
        return code;
    int error = storm_run_init(&run, &options);
    if (error == 0)
        error = watchman.signals = watch_signals(&run);
    if (error < 0) {
        fprintf(stderr, "storm: %s\n", strerror(-error));
        storm_run_free(&run);
        return EXIT_FAILURE;
    }
    watch(&watchman, &run);
    code = report(&run);
    storm_run_free(&run);
    return code;
}

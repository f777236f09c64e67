/* cli/check.c: `baton check`: everything a start or a reload would trip over, and what it would change, without
 * touching what runs. Modules are copied and loaded exactly as a reload does, but in a child that may crash. */
#include <cli/cli.h>

#include <app/module.h>
#include <base/clock.h>
#include <cli/dry_run.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Everything the child has to say: an empty `why` means that the module can be used. */
typedef struct verdict {
    bool has_on_request;
    char why[640];
} verdict;

static void __attribute__((noreturn)) load_in_child(const char *path, int out)
{
    baton_callbacks callbacks = {0};
    verdict found = {0};
    if (bt_module_load(path, &callbacks, found.why, sizeof(found.why)) < 0 && !found.why[0])
        snprintf(found.why, sizeof(found.why), "%s: cannot be loaded", path);
    found.has_on_request = callbacks.on_request != NULL;
    ssize_t written = write(out, &found, sizeof(found));
    /* _exit: the parent's buffered output is not ours, and the module's destructors are not wanted. */
    _exit(written == (ssize_t) sizeof(found) ? 0 : 1);
}

/* True when the whole verdict arrived in time; a pipe takes a message of this size in one piece. */
static bool read_verdict(int fd, verdict *found, uint64_t timeout_ms, bool *timed_out)
{
    uint64_t deadline = bt_clock_ms() + timeout_ms;
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        uint64_t now = bt_clock_ms();
        ready = poll(&poller, 1, now < deadline ? (int) (deadline - now) : 0);
    } while (ready < 0 && errno == EINTR);
    *timed_out = ready == 0;
    return ready > 0 && read(fd, found, sizeof(*found)) == (ssize_t) sizeof(*found);
}

/* Loads the copy in a child. Returns 0, or -1 with words in `why`. */
static int try_module(const bt_worker_config *worker, const char *path, verdict *found, char *why, size_t size)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        snprintf(why, size, "pipe: %s", strerror(errno));
        return -1;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        load_in_child(path, pipe_fds[1]);
    close(pipe_fds[1]);

    bool timed_out = false;
    bool complete = child > 0 && read_verdict(pipe_fds[0], found, worker->ready_timeout_ms, &timed_out);
    close(pipe_fds[0]);
    if (child < 0) {
        snprintf(why, size, "fork: %s", strerror(errno));
        return -1;
    }
    if (timed_out)
        kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;

    const char *name = strrchr(worker->module, '/') ? strrchr(worker->module, '/') + 1 : worker->module;
    if (complete) {
        snprintf(why, size, "%s", found->why);
        return found->why[0] ? -1 : 0;
    }
    if (timed_out)
        snprintf(why, size, "%s: loading it takes more than ready_timeout (%llu ms)", name,
                 (unsigned long long) worker->ready_timeout_ms);
    else if (WIFSIGNALED(status))
        snprintf(why, size, "%s: loading it ends with signal %d (%s)", name, WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(why, size, "%s: loading it ends the process with exit %d", name, WEXITSTATUS(status));
    return -1;
}

static int check_worker(const char *where, const baton_worker *worker, const char *dir, uint64_t number,
                        bt_module_copy *copy)
{
    const bt_worker_config *config = worker->config;
    verdict found = {0};
    char why[1024];
    if (!config->module && !config->module_files)
        return 0;

    bool is_bad = bt_generation_build(dir, number, config, copy, why, sizeof(why)) < 0;
    if (!is_bad && config->module)
        is_bad = try_module(config, copy->path, &found, why, sizeof(why)) < 0;
    if (is_bad) {
        fprintf(stderr, "%s: worker %s: module: %s\n", where, config->name, why);
        return -1;
    }
    if (config->module && config->listen && strcmp(config->address.scheme, "http") == 0 && !found.has_on_request &&
        !worker->callbacks.on_request) {
        fprintf(stderr, "%s: worker %s: module: %s: has no on_request, which %s needs\n", where, config->name,
                config->module, config->listen);
        return -1;
    }
    return 0;
}

/* `copies`: one for each worker. */
static int check_modules(const char *where, const bt_service *service, const char *dir, bt_module_copy *copies)
{
    int result = 0;
    for (size_t i = 0; i < service->config->worker_count; i++) {
        if (check_worker(where, service->workers[i], dir, i + 1, &copies[i]) < 0)
            result = -1;
    }
    if (bt_generation_remove_all(dir) < 0)
        fprintf(stderr, "%s: warning: %s could not be removed\n", where, dir);
    char modules[4200];
    snprintf(modules, sizeof(modules), "%s/modules", dir);
    rmdir(modules);
    rmdir(dir);
    return result;
}

/* In a directory of its own, which is gone afterwards. */
static int check_in_private(const char *where, const bt_service *service, bt_module_copy *copies)
{
    const char *tmp = getenv("TMPDIR");
    char dir[256];
    tmp = tmp && *tmp ? tmp : "/tmp";
    int len = snprintf(dir, sizeof(dir), "%s/baton-check-XXXXXX", tmp);
    if (len < (int) sizeof(dir) && mkdtemp(dir))
        return check_modules(where, service, dir, copies);
    fprintf(stderr, "%s: cannot make a temporary directory below %s: %s\n", where, tmp,
            strerror(len >= (int) sizeof(dir) ? ENAMETOOLONG : errno));
    return -1;
}

int bt_cli_try_modules(const bt_cli *cli, const bt_service *service)
{
    bt_module_copy *copies = calloc(service->config->worker_count, sizeof(*copies));
    int code = BT_EXIT_USAGE;
    if (!copies)
        bt_cli_fail(cli, code, "out of memory");
    else if (check_in_private(cli->is_command ? cli->file : cli->program, service, copies) == 0)
        code = BT_EXIT_DONE;
    free(copies);
    return code;
}

int bt_cli_check(bt_cli *cli)
{
    char why[512];
    bt_service *service = bt_cli_load(cli);
    if (!service)
        return BT_EXIT_USAGE;

    const char *where = cli->is_command ? cli->file : cli->program;
    size_t count = service->config->worker_count;
    bt_module_copy *copies = calloc(count, sizeof(*copies));
    int code = BT_EXIT_USAGE;
    if (!copies)
        bt_cli_fail(cli, code, "out of memory");
    else if (check_in_private(where, service, copies) == 0)
        code = BT_EXIT_DONE;
    if (code == BT_EXIT_DONE) {
        printf("%s: ok, %zu worker%s\n", where, count, count == 1 ? "" : "s");
        /* What is checked is right all the same: a master that hangs is no reason to fail. */
        if (bt_dry_run(stdout, service->config, copies, why, sizeof(why)) < 0)
            fprintf(stderr, "%s: warning: not compared with what runs: %s\n", where, why);
    }
    free(copies);
    bt_cli_unload(cli, service);
    return code;
}

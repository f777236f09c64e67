/* cli/resume.c: this program was executed by a running master, for an upgrade: to be checked, or to take its place.
 * Must not know how that is done (proc/upgrade.h). */
#include <cli/cli.h>

#include <app/config_json.h>
#include <app/service.h>
#include <app/settings.h>
#include <app/start_program.h>
#include <baton/version.h>
#include <jansson.h>
#include <limits.h>
#include <proc/json_text.h>
#include <proc/master.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- which program this is ---- */

static bool is_program(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

static char *find_in_path(const char *name)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path ? path : "/usr/local/bin:/usr/bin:/bin");
    char *position;
    char *found = NULL;
    for (char *dir = copy ? strtok_r(copy, ":", &position) : NULL; dir && !found;
         dir = strtok_r(NULL, ":", &position)) {
        found = bt_path_join(dir, name);
        if (found && !is_program(found)) {
            free(found);
            found = NULL;
        }
    }
    free(copy);
    return found;
}

/* argv[0] is what the caller likes; the kernel knows better, but not through which symlinks. */
static char *running_program(void)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    return len > 0 ? strndup(path, (size_t) len) : NULL;
}

char *bt_cli_program_path(const char *name)
{
    char *path = NULL;
    if (!strchr(name, '/')) {
        path = find_in_path(name);
    } else {
        char *cwd = getcwd(NULL, 0);
        path = cwd || name[0] == '/' ? bt_path_join(cwd, name) : NULL;
        free(cwd);
    }
    return path ? path : running_program();
}

/* ---- how it was called ---- */

/* All words of the kernel's list, which a start program cannot have changed before it called us; the list itself is
 * behind them in the same piece of memory. NULL when there is none. */
static char **called_with(int *count)
{
    FILE *file = fopen("/proc/self/cmdline", "re");
    char *text = NULL;
    size_t size = 0;
    ssize_t len = file ? getdelim(&text, &size, EOF, file) : -1;
    if (file)
        fclose(file);
    *count = 0;
    for (ssize_t i = 0; i < len; i++)
        *count += text[i] == '\0';
    char **words = len > 0 ? calloc(1, (size_t) (*count + 1) * sizeof(*words) + (size_t) len) : NULL;
    char *copy = words ? memcpy(words + *count + 1, text, (size_t) len) : NULL;
    for (int i = 0; copy && i < *count; i++, copy += strlen(copy) + 1)
        words[i] = copy;
    free(text);
    return words;
}

char **bt_cli_call(const char *command, const char *instead)
{
    int count;
    char **words = called_with(&count);
    int i = words ? count - 1 : 0;
    while (i > 0 && strcmp(words[i], command) != 0)
        i--;
    if (i > 0) {
        words[i] = (char *) (uintptr_t) instead; /* execve does not write */
        return words;
    }
    free(words);
    return NULL;
}

/* ---- checking ---- */

/* A start program describes its service anew, but the files of the running one stay where they are. */
static int keep_paths(bt_config *config, const json_t *handover, char *why, size_t size)
{
    static const char *const names[] = {"pid_file", "run_dir"};
    const json_t *settings = json_object_get(json_object_get(handover, "config"), "master");
    int error = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names) && error == 0; i++) {
        char *value = bt_json_bytes_dup(json_object_get(settings, names[i]));
        if (value)
            error = bt_config_set_master(config, names[i], value, why, size);
        free(value);
    }
    return error;
}

/* The directory from which the running one was started may be gone: its file is known by its whole name. */
static char *find_file(bt_cli *cli, const json_t *handover)
{
    char *file = bt_json_bytes_dup(json_object_get(json_object_get(handover, "config"), "file"));
    if (!file || !cli->is_command)
        return file;
    cli->file = file;
    cli->options |= BT_OPTION_FILE;
    return file;
}

static int try_service(const bt_cli *cli, const json_t *handover)
{
    char why[512] = "";
    bt_service *service = bt_cli_load(cli);
    if (!service)
        return BT_EXIT_USAGE;
    int code = BT_EXIT_DONE;
    if (json_integer_value(json_object_get(handover, "pid")) != getppid())
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "the handover is of another process");
    else if (bt_handover_check(handover, service, why, sizeof(why)) < 0 ||
             (!cli->is_command && keep_paths(service->config, handover, why, sizeof(why)) < 0))
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    else
        code = bt_cli_try_modules(cli, service);
    bt_cli_unload(cli, service);
    return code;
}

static int check(bt_cli *cli, int fd)
{
    char why[512] = "";
    json_t *handover = bt_handover_load(fd, why, sizeof(why));
    if (!handover)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    char *file = find_file(cli, handover);
    int code = try_service(cli, handover);
    free(file);
    json_decref(handover);
    if (code == BT_EXIT_DONE)
        printf(BT_CHECK_PASSED "%s\n", baton_version());
    return code;
}

/* ---- taking the master's place ---- */

/* What the running master was started with. */
static bt_service *resumed_service(const bt_cli *cli, const json_t *handover, char *why, size_t size)
{
    const char *mistakes;
    bool goes_back = json_object_get(handover, "report") != NULL;
    bt_config *(*from_json)(const json_t *object, char *why, size_t size) =
        goes_back ? bt_config_from_json_lenient : bt_config_from_json;
    bt_service *service = NULL;
    if (cli->is_command) {
        bt_config *config = from_json(json_object_get(handover, "config"), why, size);
        service = config ? bt_service_new_take(config) : NULL;
    } else {
        service = bt_start_program_service(&mistakes);
        if (keep_paths(service->config, handover, why, size) < 0)
            return NULL;
    }
    if (!service)
        return NULL;
    service->config->master.daemonize = json_is_true(json_object_get(handover, "daemon"));
    service->config_from_json = from_json;
    return service;
}

/* This program cannot do it. Returns the exit code, if at all. */
static int give_back(const bt_cli *cli, json_t *handover, const char *why)
{
    bt_service old = {.program = cli->program_path, .argv = cli->argv, .handover = handover};
    bt_upgrade_return(&old, why);
    return bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
}

static int adopt(bt_cli *cli, json_t *handover)
{
    char why[512] = "out of memory";
    bt_service hooks = {.config_from_json = bt_config_from_json, .free_config = bt_config_free};
    if (json_object_get(handover, "report"))
        hooks.config_from_json = bt_config_from_json_lenient;
    if (json_integer_value(json_object_get(handover, "pid")) != getpid())
        return bt_cli_fail(cli, BT_EXIT_FAILED, "the handover is of another process");
    if (bt_handover_check(handover, &hooks, why, sizeof(why)) < 0)
        return give_back(cli, handover, why);
    bt_service *service = resumed_service(cli, handover, why, sizeof(why));
    if (!service)
        return give_back(cli, handover, why);
    service->handover = handover;
    return bt_cli_run_service(cli, service);
}

int bt_cli_resume(bt_cli *cli, bt_upgrade_mode mode, int fd, const char *mistake)
{
    char why[512];
    if (mode == BT_UPGRADE_CHECK)
        return mistake ? bt_cli_fail(cli, BT_EXIT_USAGE, "%s", mistake) : check(cli, fd);
    json_t *handover = bt_handover_load(fd, why, sizeof(why));
    close(fd);
    if (!handover)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    /* argv[0] may be a name that meant this program where the service was started, but does not mean it here. */
    char *program = bt_json_bytes_dup(json_object_get(handover, "program"));
    char *found_here = cli->program_path;
    if (program)
        cli->program_path = program;
    int code = mistake ? give_back(cli, handover, mistake) : adopt(cli, handover);
    cli->program_path = found_here;
    free(program);
    json_decref(handover);
    return code;
}

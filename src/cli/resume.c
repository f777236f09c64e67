/* cli/resume.c: this program was executed by a running master, for an upgrade: to be checked, or to take its place.
 * Must not know how that is done (proc/upgrade.h). */
#include <cli/cli.h>

#include <app/config_json.h>
#include <app/service.h>
#include <app/settings.h>
#include <app/start_program.h>
#include <baton/version.h>
#include <jansson.h>
#include <proc/master.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which program this is ---- */

static char *find_in_path(const char *name)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path ? path : "/usr/local/bin:/usr/bin:/bin");
    char *position;
    char *found = NULL;
    for (char *dir = copy ? strtok_r(copy, ":", &position) : NULL; dir && !found;
         dir = strtok_r(NULL, ":", &position)) {
        found = bt_path_join(dir, name);
        if (found && access(found, X_OK) != 0) {
            free(found);
            found = NULL;
        }
    }
    free(copy);
    return found;
}

char *bt_cli_program_path(const char *name)
{
    if (!strchr(name, '/'))
        return find_in_path(name);
    char *cwd = getcwd(NULL, 0);
    char *path = cwd || name[0] == '/' ? bt_path_join(cwd, name) : NULL;
    free(cwd);
    return path;
}

/* ---- checking ---- */

static int check(bt_cli *cli, int fd)
{
    char why[512] = "";
    bt_service *service = bt_cli_load(cli);
    if (!service)
        return BT_EXIT_USAGE;
    json_t *handover = bt_handover_read(fd, service, why, sizeof(why));
    int code = BT_EXIT_DONE;
    if (!handover)
        code = bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    else
        code = bt_cli_try_modules(cli, service);
    json_decref(handover);
    bt_cli_unload(cli, service);
    if (code == BT_EXIT_DONE)
        printf(BT_CHECK_PASSED "%s\n", baton_version());
    return code;
}

/* ---- taking the master's place ---- */

/* A start program describes its service anew, but the files of the running one stay where they are. */
static int keep_paths(bt_config *config, const json_t *handover, char *why, size_t size)
{
    static const char *const names[] = {"pid_file", "run_dir"};
    const json_t *settings = json_object_get(json_object_get(handover, "config"), "master");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *value = json_string_value(json_object_get(settings, names[i]));
        if (value && bt_config_set_master(config, names[i], value, why, size) < 0)
            return -1;
    }
    return 0;
}

/* What the running master was started with. */
static bt_service *resumed_service(const bt_cli *cli, const json_t *handover, char *why, size_t size)
{
    const char *mistakes;
    if (cli->is_command) {
        bt_config *config = bt_config_from_json(json_object_get(handover, "config"), why, size);
        return config ? bt_service_new_take(config) : NULL;
    }
    bt_service *service = bt_start_program_service(&mistakes);
    if (keep_paths(service->config, handover, why, size) < 0)
        return NULL;
    service->config->master.daemonize = json_is_true(json_object_get(handover, "daemon"));
    return service;
}

static int adopt(const bt_cli *cli, int fd)
{
    char why[512] = "out of memory";
    bt_service hooks = {.config_from_json = bt_config_from_json,
                        .free_config = bt_config_free,
                        .program = cli->program_path,
                        .argv = cli->argv};
    json_t *handover = bt_handover_read(fd, &hooks, why, sizeof(why));
    if (!handover)
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    bt_service *service = resumed_service(cli, handover, why, sizeof(why));
    if (!service) {
        hooks.handover = handover;
        bt_upgrade_return(&hooks, why);
        return bt_cli_fail(cli, BT_EXIT_FAILED, "%s", why);
    }
    close(fd);
    service->handover = handover;
    int code = bt_cli_run_service(cli, service);
    json_decref(handover);
    return code;
}

int bt_cli_resume(bt_cli *cli, bt_upgrade_mode mode, int fd)
{
    return mode == BT_UPGRADE_CHECK ? check(cli, fd) : adopt(cli, fd);
}

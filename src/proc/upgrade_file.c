/* proc/upgrade_file.c: the handover as a file in memory: written and sealed, found again after execve, read, checked.
 * Must not know what is done with it: upgrade.c and cli/resume.c do. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <proc/master_parts.h>
#include <proc/upgrade.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VARIABLE     "BATON_UPGRADE"
#define FILE_NAME    "baton-handover"
#define HANDOVER_MAX (64 * 1024 * 1024)
#define SEALS        (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* ---- what this program was executed for ---- */

/* A variable that somebody's shell has left over names no sealed file of ours. */
static bool is_handover(int fd)
{
    static const char expected[] = "/memfd:" FILE_NAME " ";
    char link[64];
    char name[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd <= STDERR_FILENO || readlink(link, name, sizeof name - 1) < 0)
        return false;
    return strncmp(name, expected, sizeof expected - 1) == 0 && fcntl(fd, F_GET_SEALS) == SEALS;
}

/* "check:7". The descriptor, or -1. */
static int parse(const char *value, bt_upgrade_mode *mode)
{
    static const char check[] = "check:";
    static const char adopt[] = "adopt:";
    bool is_check = strncmp(value, check, sizeof check - 1) == 0;
    if (!is_check && strncmp(value, adopt, sizeof adopt - 1) != 0)
        return -1;
    const char *digits = strchr(value, ':') + 1;
    char *end;
    long number = strtol(digits, &end, 10);
    if (end == digits || *end != '\0' || number < 0 || number > INT_MAX)
        return -1;
    *mode = is_check ? BT_UPGRADE_CHECK : BT_UPGRADE_ADOPT;
    return (int) number;
}

bt_upgrade_mode bt_upgrade_mode_take(int *fd)
{
    const char *value = getenv(VARIABLE);
    bt_upgrade_mode mode = BT_UPGRADE_NONE;
    int given = value == NULL ? -1 : parse(value, &mode);
    unsetenv(VARIABLE); /* our children are not executed for it */
    if (given < 0 || !is_handover(given))
        return BT_UPGRADE_NONE;
    *fd = given;
    fcntl(given, F_SETFD, FD_CLOEXEC);
    return mode;
}

int bt_upgrade_mode_set(bt_upgrade_mode mode, int fd)
{
    char value[32];
    if (mode == BT_UPGRADE_NONE)
        return unsetenv(VARIABLE) < 0 ? -errno : 0;
    snprintf(value, sizeof value, "%s:%d", mode == BT_UPGRADE_CHECK ? "check" : "adopt", fd);
    return setenv(VARIABLE, value, 1) < 0 ? -errno : 0;
}

/* ---- writing and reading ---- */

int bt_handover_write(const json_t *handover)
{
    int fd = memfd_create(FILE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    errno = ENOMEM; /* jansson's own failure does not set it */
    if (json_dumpfd(handover, fd, JSON_COMPACT) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

json_t *bt_handover_load(int fd, char *why, size_t size)
{
    struct stat info;
    json_error_t error;
    if (fstat(fd, &info) < 0 || info.st_size <= 0 || info.st_size > HANDOVER_MAX) {
        snprintf(why, size, "the handover cannot be read");
        return NULL;
    }
    lseek(fd, 0, SEEK_SET);
    json_t *handover = json_loadfd(fd, 0, &error);
    if (handover == NULL)
        snprintf(why, size, "the handover is not understood: %s", error.text);
    return handover;
}

/* ---- checking ---- */

/* Versions that must be the same in both programs; a newer one that can talk to older ones says so here. */
static int check_versions(const json_t *handover, char *why, size_t size)
{
    const struct {
        const char *key;
        const char *what;
        json_int_t ours;
    } list[] = {
        {"format", "handover format", BT_HANDOVER_FORMAT},
        {"channel_version", "channel version", BT_CHANNEL_VERSION},
        {"row_size", "counter size", (json_int_t) sizeof(bt_row)},
        {"row_count", "counter table", BT_ROWS},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const json_t *theirs = json_object_get(handover, list[i].key);
        if (json_is_integer(theirs) && json_integer_value(theirs) == list[i].ours)
            continue;
        snprintf(why, size, "the running master has %s %lld, this program %lld: a restart is needed", list[i].what,
                 (long long) json_integer_value(theirs), (long long) list[i].ours);
        return -EPROTO;
    }
    return 0;
}

static int check_members(const json_t *handover, char *why, size_t size)
{
    static const struct {
        const char *key;
        json_type type;
    } list[] = {
        {"config", JSON_OBJECT},     {"times", JSON_OBJECT},      {"fds", JSON_OBJECT},
        {"roll", JSON_OBJECT},       {"generations", JSON_ARRAY}, {"crews", JSON_ARRAY},
        {"listen_sets", JSON_ARRAY}, {"children", JSON_ARRAY},    {"clients", JSON_ARRAY},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const json_t *member = json_object_get(handover, list[i].key);
        if (member != NULL && json_typeof(member) == list[i].type)
            continue;
        snprintf(why, size, "the handover lacks \"%s\"", list[i].key);
        return -EPROTO;
    }
    return 0;
}

static int check_config(const json_t *object, const bt_service *hooks, char *why, size_t size)
{
    bt_config *config = hooks->config_from_json(object, why, size);
    if (config == NULL)
        return -EPROTO;
    hooks->free_config(config);
    return 0;
}

/* Each configuration can be understood here. */
static int check_configs(const json_t *handover, const bt_service *hooks, char *why, size_t size)
{
    size_t i;
    const json_t *generation;
    int err = check_config(json_object_get(handover, "config"), hooks, why, size);
    json_array_foreach(json_object_get(handover, "generations"), i, generation)
    {
        const json_t *object = json_object_get(generation, "config");
        if (err == 0 && json_is_object(object)) /* the record of one that nobody uses has none */
            err = check_config(object, hooks, why, size);
    }
    return err;
}

int bt_handover_check(const json_t *handover, const bt_service *hooks, char *why, size_t size)
{
    int err = check_versions(handover, why, size);
    if (err == 0)
        err = check_members(handover, why, size);
    return err == 0 ? check_configs(handover, hooks, why, size) : err;
}

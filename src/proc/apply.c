/* proc/apply.c: the [baton] settings that are in force, and the log file among them.
 * Must not know where a configuration comes from. */
#include <base/log.h>
#include <errno.h>
#include <fcntl.h>
#include <proc/master_parts.h>
#include <proc/pidfile.h>
#include <string.h>
#include <unistd.h>

static void close_log(bt_master *master)
{
    if (master->log_fd < 0)
        return;
    bt_master_fd_remove(master, master->log_fd);
    close(master->log_fd);
    master->log_fd = -1;
}

int bt_master_open_log(bt_master *master)
{
    const char *path = master->limits->log_file;
    if (path == NULL) {
        close_log(master);
        bt_log_set_fd(-1);
        return 0;
    }
    int err = bt_make_parent_dirs(path, 0755);
    int fd = err < 0 ? err : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err < 0 ? err : -errno;
    close_log(master);
    master->log_fd = fd;
    bt_log_set_fd(fd);
    return bt_master_fd_add(master, fd);
}

/* logrotate has moved the file: a process that runs as another user could not open the new one, so it gets it. */
void bt_master_reopen_log(bt_master *master)
{
    int err = bt_master_open_log(master);
    if (err < 0) {
        bt_log(BT_LOG_ERROR, "log-not-reopened error=\"%s\"", strerror(-err));
        return;
    }
    int fd = master->log_fd >= 0 ? master->log_fd : STDERR_FILENO;
    bt_list_each (node, &master->children)
        bt_channel_send(&bt_container(node, bt_child, node)->channel, BT_MESSAGE_LOG, 0, NULL, fd);
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void bt_master_apply(bt_master *master, bt_generation *generation)
{
    const bt_master_config *settings = &generation->config->master;
    bool log_moves = !same_text(master->limits->log_file, settings->log_file);
    bt_log_level level = BT_LOG_INFO;
    master->limits = settings; /* before the generation that holds the old ones goes */
    bt_generation_set(master, &master->current, generation);
    if (bt_log_level_parse(settings->log_level, &level) == 0)
        bt_log_setup(bt_log_fd(), level, "master");
    if (log_moves)
        bt_master_reopen_log(master);
}

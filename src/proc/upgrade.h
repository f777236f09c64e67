/* proc/upgrade.h: another program takes the master's place, in place: the same process, the same descriptors.
 *
 *   upgrade request
 *     |  check     the new program runs as a child with the real handover: it reads it, its configuration, its modules
 *     |  idle      no roll is going on
 *   execve         all signals blocked; what the master knows is in a memfd
 *     |  adopt     the new image takes over sockets, channels, processes and generations, then handles signals
 *     |  roll      processes of the new program replace the old ones
 *   done           or, when the new image or its processes fail: execve of the old program, which adopts the same way
 */
#ifndef BT_PROC_UPGRADE_H
#define BT_PROC_UPGRADE_H

#include <proc/worker.h>

struct json_t;
struct bt_master;
struct bt_waiter;

#define BT_HANDOVER_FORMAT 1

/* Begins the line that a check says when it went well, before the version. */
#define BT_CHECK_PASSED "baton-upgrade-check passed: "

typedef enum bt_upgrade_mode {
    BT_UPGRADE_NONE,  /* an ordinary call of the program */
    BT_UPGRADE_CHECK, /* say whether the handover could be adopted, and end */
    BT_UPGRADE_ADOPT, /* be the master from now on */
} bt_upgrade_mode;

/* ---- upgrade_file.c ---- */

/* What this program was executed for, from its environment, which then forgets it. *fd: the handover. A variable that
 * does not name a handover means nothing. */
bt_upgrade_mode bt_upgrade_mode_take(int *fd);

/* The contrary, for the program that is executed next; BT_UPGRADE_NONE takes it back. 0 or a negative errno. */
BATON_NODISCARD int bt_upgrade_mode_set(bt_upgrade_mode mode, int fd);

/* A sealed file with it, close-on-exec; or a negative errno. */
BATON_NODISCARD int bt_handover_write(const struct json_t *handover);

/* Reads it, without a look at what it says. NULL with words in `why`. */
struct json_t *bt_handover_load(int fd, char *why, size_t size);

/* Whether it could be adopted here; touches nothing that it names. 0, or a negative errno with words in `why`. */
BATON_NODISCARD int bt_handover_check(const struct json_t *handover, const bt_service *hooks, char *why, size_t size);

/* ---- in the master ---- */

/* What the master knows. NULL: out of memory. */
struct json_t *bt_snapshot(const struct bt_master *master);

/* The contrary: fills a fresh master that has a loop. 0, or a negative errno with words in `why`; nothing that the
 * handover names is closed then. */
BATON_NODISCARD int bt_adopt(struct bt_master *master, const struct json_t *handover, char *why, size_t size);

/* After the signals are watched: rolls to the new program's code, or back to the old one's. */
void bt_upgrade_continue(struct bt_master *master, const struct json_t *handover);

void bt_upgrade_init(struct bt_master *master);

/* Somebody asks for it. */
void bt_upgrade_request(struct bt_master *master, struct bt_waiter *waiter);

/* True while something is to be done between two turns of the loop; and does it. */
bool bt_upgrade_is_pending(const struct bt_master *master);
void bt_upgrade_fork_check(struct bt_master *master);
void bt_upgrade_execute(struct bt_master *master);

/* A child may have been the check. */
void bt_upgrade_reap(struct bt_master *master);

/* The job that rolls a generation out has failed. True when it is the upgrade that failed with it: nothing is to be
 * done any more but the way back to the old program, which rolls back and tells who waits. */
bool bt_upgrade_failed(struct bt_master *master, uint64_t serial, uint64_t generation, bool took_traffic,
                       const char *reason);

/* All slots serve what this job rolled out; the trial ends with the probation. */
void bt_upgrade_served(struct bt_master *master, uint64_t serial);

/* A new roll begins where the last one has served: the trial is over. */
void bt_upgrade_superseded(struct bt_master *master);

/* The master stops. */
void bt_upgrade_cancel(struct bt_master *master, const char *why);

/* Adopting has failed: executes the old program again. Returns only when that is not possible, either. */
void bt_upgrade_return(const bt_service *service, const char *why);

#endif

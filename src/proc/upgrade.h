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

/* Last line of a check that went well, followed by the version. */
#define BT_CHECK_PASSED "baton-upgrade-check passed: "

typedef enum bt_upgrade_mode {
    BT_UPGRADE_NONE,  /* an ordinary call of the program */
    BT_UPGRADE_CHECK, /* say whether the handover could be adopted, and end */
    BT_UPGRADE_ADOPT, /* be the master from now on */
} bt_upgrade_mode;

/* What this program was executed for, from its environment, which then forgets it. *fd: the handover. */
bt_upgrade_mode bt_upgrade_mode_take(int *fd);

/* Reads and checks a handover without touching what it names. NULL with words in `why`. */
struct json_t *bt_handover_read(int fd, const bt_service *hooks, char *why, size_t size);

/* ---- in the master ---- */

/* What the master knows. NULL: out of memory. */
struct json_t *bt_snapshot(const struct bt_master *master);

/* The contrary: fills a fresh master that has a loop. 0, or a negative errno with words in `why`; nothing that the
 * handover names is closed then. */
BATON_NODISCARD int bt_adopt(struct bt_master *master, const struct json_t *handover, char *why, size_t size);

/* After the signals are watched: rolls to the new program's code, or tells who waits how the way back went. */
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

/* The first roll under the new program has failed or succeeded. True when it is the upgrade that failed: who waits
 * hears of it from the old program. */
bool bt_upgrade_concluded(struct bt_master *master, uint64_t serial, bool ok, const char *message);

/* The master stops. */
void bt_upgrade_cancel(struct bt_master *master, const char *why);

/* Adopting has failed: executes the old program again. Returns only when that is not possible, either. */
void bt_upgrade_return(const bt_service *service, const char *why);

#endif

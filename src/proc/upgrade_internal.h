/* proc/upgrade_internal.h: between upgrade.c (the change) and upgrade_check.c (what comes before) only. */
#ifndef BT_PROC_UPGRADE_INTERNAL_H
#define BT_PROC_UPGRADE_INTERNAL_H

#include <proc/master_parts.h>
#include <proc/upgrade.h>

/* Nothing has changed: everybody who waits hears why. */
void bt_upgrade_refuse(bt_master *master, const char *why);

/* A step, for those who wait for the upgrade. */
void bt_upgrade_progress(bt_master *master, const char *step, const char *detail);

/* Whether a descriptor lives on in the program that is executed. */
void bt_upgrade_set_inherited(int fd, bool inherited);

/* Turns the loop then, at the latest; a check that is still going on is over. */
void bt_upgrade_wake_in(bt_master *master, uint64_t ms);

/* Ends the check, if there is one, and whatever it has started. */
void bt_upgrade_kill_checker(const bt_upgrade *upgrade);

#endif

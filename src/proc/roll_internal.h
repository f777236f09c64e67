/* proc/roll_internal.h: between roll.c (slot by slot), way_back.c (failures) and roll_end.c (what follows) only. */
#ifndef BT_PROC_ROLL_INTERNAL_H
#define BT_PROC_ROLL_INTERNAL_H

#include <proc/master_parts.h>

/* ---- roll.c ---- */

/* Takes the next slot that is not done, or ends the roll. Harmless while a slot is waited for. */
void bt_roll_advance(bt_master *master);

/* The slot that the roll waits for is done with, in whatever way. */
void bt_roll_step_done(bt_master *master);
void bt_roll_stop_timers(bt_master *master);

/* The crew's target has not survived a probation. */
bool bt_roll_is_unproven(const bt_crew *crew);

/* A successor of another generation than the target: it must not come to serve. */
bool bt_roll_has_wrong_successor(const bt_slot *slot);

/* Runs the target, and accepts from all sockets that are its. */
bool bt_roll_is_right(const bt_child *serving);

/* ---- way_back.c ---- */

/* All workers of the roll go back. `culprit`: the process whose fault it is, or NULL; `took_traffic`: it had been
 * ready. */
void bt_roll_fail(bt_master *master, const bt_child *culprit, bool took_traffic, const char *reason);

/* ---- roll_end.c ---- */

/* Every slot is done. */
void bt_roll_finish(bt_master *master);

/* The same on the way back, or nobody has anywhere to go. */
void bt_roll_finish_reverting(bt_master *master);

#endif

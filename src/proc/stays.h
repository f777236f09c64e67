/* proc/stays.h: why connections stay in a process that leaves: for status, and for the log when its time is up.
 * Knows connections; not what is done about them. */
#ifndef BT_PROC_STAYS_H
#define BT_PROC_STAYS_H

#include <net/conn.h>

/* Counts every connection of the loop that cannot be passed now into `own->stays`. One that is found here for the first
 * time while a successor asks counts in `crew->stayed`, too. */
void bt_stays_count(bt_loop *loop, bt_counters *own, bt_counters *crew);

/* Nobody stays any more. */
void bt_stays_clear(bt_counters *own);

/* What status and the log call them. */
extern const char *const bt_stay_words[BT_STAYS];

/* "1 request, 3 app state", or "" when there is none. Returns `out`; 128 bytes suffice. */
const char *bt_stays_text(const bt_counters *own, char *out, size_t size);

#endif

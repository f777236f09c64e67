/* app/suggest.h: "did you mean ...?" for misspelt words. Knows no setting and no command. */
#ifndef BT_APP_SUGGEST_H
#define BT_APP_SUGGEST_H

#include <stddef.h>

/* The closest of the words seen so far; starts zeroed. */
typedef struct bt_suggestion {
    const char *word; /* borrowed; NULL: nothing is near enough */
    size_t distance;
} bt_suggestion;

/* Number of inserted, dropped, changed or swapped neighbouring letters between the two, upper and lower
 * case being equal. Words over 63 bytes are never near: returns 64. */
size_t bt_edit_distance(const char *a, const char *b);

/* Keeps `candidate` in `best` when it is near to `word` (a third of its letters, at least one) and nearer than before.
 */
void bt_suggest(bt_suggestion *best, const char *word, const char *candidate);

#endif

/* app/suggest.c: the edit distance behind "did you mean ...?".
 * Must not know what the words stand for. */
#include <app/suggest.h>

#include <ctype.h>
#include <string.h>

#define LONGEST 63

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int lower(char c)
{
    return tolower((unsigned char) c);
}

/* Three rows of the usual table are enough: a swap looks two rows back. */
size_t bt_edit_distance(const char *a, const char *b)
{
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > LONGEST || b_len > LONGEST)
        return LONGEST + 1;

    size_t rows[3][LONGEST + 1];
    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *now = rows[i % 3];
        const size_t *before = rows[(i + 2) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = before[j - 1] + (lower(a[i - 1]) != lower(b[j - 1]));
            now[j] = least(change, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
                now[j] = least(now[j], rows[(i + 1) % 3][j - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

void bt_suggest(bt_suggestion *best, const char *word, const char *candidate)
{
    size_t allowed = strlen(word) / 3;
    if (allowed < 1)
        allowed = 1;
    size_t distance = bt_edit_distance(word, candidate);
    if (distance > allowed || distance >= strlen(candidate))
        return;
    if (best->word && best->distance <= distance)
        return;
    best->word = candidate;
    best->distance = distance;
}

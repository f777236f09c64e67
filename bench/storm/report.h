/* report.h: what was counted, as a line, as JSON, and live.
 * Knows nothing of connections. */
#ifndef STORM_REPORT_H
#define STORM_REPORT_H

#include "run.h"

/* `seconds` since the start. The last line of a run, and its one JSON object. */
void storm_report_line(const storm_tally *tally);
void storm_report_json(const storm_tally *tally, double seconds);

/* The first failures in words, on stderr. */
void storm_report_notes(const storm_tally *tally);

/* One progress line on stderr; on a terminal it overwrites the one before. */
void storm_report_live(const storm_run *run, bool is_terminal, double seconds, double rate);

#endif

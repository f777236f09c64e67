/* client.h: what client.c and exchange.c do with one client, and what run.c calls.
 * Any of these may close the connection: look at the state afterwards. */
#ifndef STORM_CLIENT_H
#define STORM_CLIENT_H

#include "run.h"

enum { STORM_MS = 1000000 }; /* ns */

/* ---- client.c ---- */

void storm_client_init(storm_client *client, storm_run *run, storm_kind kind, uint32_t id);
void storm_client_free(storm_client *client);

/* Connects. */
void storm_client_open(storm_client *client);
void storm_client_event(storm_client *client, uint32_t events);
void storm_client_timeout(storm_client *client);

/* Queues a client without connection for its next one, or lets it rest for good. After a failure without any
 * answer the server is left alone for a moment: a dead one must not be asked in a spin. */
void storm_client_rest(storm_client *client, bool is_dead_server);

/* Ends the connection; what it still owes is lost. */
void storm_client_drop(storm_client *client);

/* Closes the descriptor and stops the alarms, nothing else. */
void storm_client_close(storm_client *client);

/* The run is over: what is still under way is lost. */
void storm_client_finish(storm_client *client);

void storm_client_enter(storm_client *client, storm_state state);
bool storm_client_is_busy(const storm_client *client);
void storm_client_watch(storm_client *client, uint32_t events);
void storm_client_arm(storm_client *client);

/* Requests whose first byte was sent and that have no answer. */
uint32_t storm_client_under_way(const storm_client *client);

/* Remembers a failure in words. */
void storm_client_note(storm_client *client, const char *what);

/* ---- exchange.c ---- */

/* Sends the next batch, if one may begin. */
void storm_exchange_begin(storm_client *client);

/* Sends what the socket takes. Returns false when the connection broke and was dropped. */
bool storm_exchange_send(storm_client *client);
void storm_exchange_second_half(storm_client *client);
void storm_exchange_read(storm_client *client);

/* An idle connection's second request. */
void storm_exchange_last_call(storm_client *client);

#endif

/* proc/control.h: the control socket of the master: JSON lines over a Unix stream socket (mode 0600, beside the
 * pid file: "baton.pid" -> "baton.sock"; peer must be root or the master's own user).
 *
 * The client sends one request line; the master answers any number of progress lines and one last line:
 *
 *   {"command":"status"}
 *   {"command":"reload","worker":"web" or null,"wait":"none" | "serve" | "probation","unlimited":false}
 *   {"command":"rollback","worker":"web" or null,"wait":"serve" | "probation"}
 *   {"command":"upgrade","wait":"serve" | "probation"}
 *   {"command":"stop","graceful":true}
 *   {"command":"generations"}
 *   {"command":"config"}
 *
 *   {"event":"progress","worker":"web","slot":0,"step":"starting","pid":4712,"generation":2,"detail":""}
 *       step: preparing (worker "" and slot -1), checking and upgrading (the same, of an upgrade), starting, ready,
 *       passing, passed, failed, rolling-back, stopping, stopped
 *   {"event":"done","ok":true,"code":0,"message":"generation 2 serves","generation":2,"status":{...}}
 *       code: the exit code of the command; status only for "status". A failed reload, rollback or upgrade that was
 *       the fault of a process has "log":["...",...], its last log lines.
 *       "generations" adds "generations":[{"number":2,"created_at":1700000000000,
 *         "state":"serving" | "probation" | "rolling" | "kept" | "ending" | "failed" | "replaced","reason":"",
 *         "workers":[{"name":"web","sha256":"..." or null,"build_id":"..." or null}]}], oldest first
 *       "config" adds "config":{"file":"/path/baton.ini" or null,"workers":[{"name":"web","generation":2}],
 *         "texts":[{"generation":2,"text":"[baton]..."}]}: what each worker runs with, as it was read
 *
 * After "stop" the last line comes when every process has ended; then the master exits and the connection ends.
 *
 * status: {"version":"0.1.0","pid":1,"state":"starting"|"running"|"reloading"|"stopping","daemon":false,
 *   "config":"/path/baton.ini" or null,"started_at":1700000000000,"uptime_ms":5,"generation":2,"reloads":1,
 *   "last_reload":null | {"ok":true,"generation":2,"message":"...","took_ms":31},
 *   "workers":[{"name":"web","listen":"http://127.0.0.1:8080" or null,"addresses":["127.0.0.1:8080"],"count":2,
 *     "reloadable":true,"generation":2,"exits":[{"reason":"exit 1","count":3}],
 *     "processes":[{"slot":0,"pid":4712,"generation":2,"state":"starting"|"serving"|"draining"|"stopping"|"backoff",
 *       "connections":64,"requests":1000,"accepted":70,"passed_in":64,"passed_out":0,"rejected":0,
 *       "memory":1234567,"started_at":1700000000000,"restarts":0,"last_exit":null | "signal 11 (Segmentation
 * fault)","stuck_ms":null | 5000,"stays":{"app state":2}}]}]}
 * stuck_ms: how long its loop has stood still; stays: why connections stay in a process that leaves (words: request,
 * mid-response, app state, tls, refused, closing). A worker also has "stayed", the same since the start, "leaving":
 * true when the configuration has it no more, and "alarms":["slot 0: ended 5 times in a row within a second, next try
 * in 800 ms"]. started_at in wall milliseconds, memory = resident bytes; a slot in backoff has pid 0. */
#ifndef BT_PROC_CONTROL_H
#define BT_PROC_CONTROL_H

#include <baton/types.h>

struct bt_master;

/* Path of the control socket for a pid file, malloc'ed; NULL when out of memory. */
char *bt_control_path(const char *pid_file);

/* Takes over `fd`, a listening socket. 0 or a negative errno. */
BATON_NODISCARD int bt_control_start(struct bt_master *master, int fd);

/* For an upgrade: the listening socket, the clients as a new JSON array, and both in another image of the master. */
int bt_control_fd(const struct bt_master *master);
struct json_t *bt_control_clients_json(const struct bt_master *master);
BATON_NODISCARD int bt_control_adopt(struct bt_master *master, int fd, const struct json_t *clients);

/* A client has not taken its whole answer yet; such a client is not described. */
bool bt_control_has_unsent(const struct bt_master *master);

/* Stops listening and, after what is queued has been written, closes all clients. */
void bt_control_stop(struct bt_master *master);

#endif

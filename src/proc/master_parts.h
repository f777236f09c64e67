/* proc/master_parts.h: what the files of the master do for each other, file by file. */
#ifndef BT_PROC_MASTER_PARTS_H
#define BT_PROC_MASTER_PARTS_H

#include <proc/master_state.h>

/* ---- master.c ---- */

/* Descriptors of the master that must not live on in a child: a stray copy of a channel's end would hide its
 * end-of-file. */
BATON_NODISCARD int bt_master_fd_add(bt_master *master, int fd);
void bt_master_fd_remove(bt_master *master, int fd);

/* Two descriptors that can be had even when the process has used all others. */
void bt_master_give_reserve(bt_master *master);
void bt_master_take_reserve(bt_master *master);

/* Begins to stop; a second call only makes it less patient. */
void bt_master_stop(bt_master *master, bool graceful);

/* A child has gone, or a slot serves: look whether the start or the stop is complete. */
void bt_master_check(bt_master *master);

/* The first generation cannot serve: says so and stops. */
void bt_master_start_failed(bt_master *master, const char *why);

/* Says how the start went to whoever asked for it. */
void bt_master_report_start(bt_master *master, int code, const char *text);

/* ---- setup.c ---- */

/* What cannot fail, so that tearing down is right from the first moment on. NULL: out of memory. */
bt_master *bt_master_new(bt_service *service);

/* Everything that can be refused, before the first process is forked. 0, or a negative errno with words in `why`. */
BATON_NODISCARD int bt_master_set_up(bt_master *master, char *why, size_t size);

/* The same for a master that an earlier image of it has described (service->handover). */
BATON_NODISCARD int bt_master_take_over(bt_master *master, char *why, size_t size);

/* Maps master->rows_fd. */
BATON_NODISCARD int bt_master_map_rows(bt_master *master);
void bt_master_tear_down(bt_master *master);

/* ---- apply.c ---- */

/* Opens the log file that the settings name. 0 or a negative errno; then the old one goes on. */
BATON_NODISCARD int bt_master_open_log(bt_master *master);

/* Opens it again, or another one, and sends it to all processes. */
void bt_master_reopen_log(bt_master *master);

/* The [baton] settings of this generation are in force from now on. */
void bt_master_apply(bt_master *master, bt_generation *generation);

/* ---- generations.c ---- */

/* A record without configuration and modules; one user. NULL: out of memory. */
bt_generation *bt_generation_new(bt_master *master, uint64_t number);

/* Gives it the configuration; `owned` ones are freed with it, also on failure. 0 or -ENOMEM. */
BATON_NODISCARD int bt_generation_set_config(bt_generation *generation, const bt_config *config, bool owned);
bt_generation *bt_generation_ref(bt_generation *generation);

/* Removes the files and the configuration when nobody uses them any more. NULL is allowed. */
void bt_generation_unref(bt_master *master, bt_generation *generation);
void bt_generations_free(bt_master *master);

/* Puts a new reference to `generation` (NULL: none) into `place`. */
void bt_generation_set(bt_master *master, bt_generation **place, bt_generation *generation);

/* The worker's section, or NULL. */
const bt_worker_config *bt_generation_section(const bt_generation *generation, const char *worker);

/* The worker's module, or NULL. */
const bt_module_copy *bt_generation_module(const bt_generation *generation, const char *worker);

/* ---- listeners.c ---- */

/* Opens the worker's address if it is not open yet: what may be refused. 0 or a negative errno with words in `why`. */
BATON_NODISCARD int bt_listeners_open(bt_master *master, bt_crew *crew, const bt_worker_config *config, char *why,
                                      size_t size);

/* The same, and all sockets that the worker needs there. */
BATON_NODISCARD int bt_listeners_provide(bt_master *master, bt_crew *crew, const bt_worker_config *config, char *why,
                                         size_t size);

/* The sockets of the worker's address; NULL: it has none, or they are not open. */
bt_listen_set *bt_listeners_find(const bt_master *master, const bt_worker_config *config);

/* How many sockets the worker's address has. */
size_t bt_listeners_count(const bt_master *master, const bt_worker_config *config);

/* There are sockets that nobody accepts from while this process serves: they are newer. */
bool bt_listeners_are_missed(const bt_child *child);

/* An address without sockets, and a socket for it: of an earlier image of the master. */
bt_listen_set *bt_listeners_adopt(bt_master *master, const bt_listen_address *address, bt_crew *crew);
BATON_NODISCARD int bt_listeners_adopt_fd(bt_listen_set *set, int fd);

/* Those from which slot `index` of `count` accepts, at most `size`. Returns how many. */
size_t bt_listeners_of_slot(const bt_listen_set *set, size_t index, size_t count, int *fds, size_t size);

/* Closes those that no worker is configured for any more; what waits in their queues is accepted first. */
void bt_listeners_retire(bt_master *master);
void bt_listeners_close_all(bt_master *master);

/* ---- crew.c ---- */

/* A worker without slots. `row` is taken; NULL: it gets a free one. NULL: out of memory. */
bt_crew *bt_crew_new(bt_master *master, const bt_worker_config *config, bt_row *row);

/* The slot of that index, made with those before it if there is none. NULL: out of memory. */
bt_slot *bt_crew_slot(bt_crew *crew, size_t index);

/* One that can be gone back to; when there are too many the oldest goes. */
void bt_crew_keep(bt_crew *crew, bt_generation *generation);

/* The worker of that name, not one that is leaving; or NULL. */
bt_crew *bt_crew_find(const bt_master *master, const char *name);

/* What its slots shall run from now on; it gets as many as the generation says. 0 or -ENOMEM. */
BATON_NODISCARD int bt_crew_set_target(bt_crew *crew, bt_generation *generation);

/* The target has survived its probation. */
void bt_crew_promote(bt_crew *crew);

/* Its processes drain; nobody succeeds them. */
void bt_crew_dismiss(bt_crew *crew);

/* Frees one that has never had a slot. */
void bt_crew_discard(bt_crew *crew);

/* Frees slots that are surplus and empty, and leaving crews without slots. Between two turns of the loop, when nobody
 * is looking at one. */
void bt_crews_tidy(bt_master *master);
void bt_crews_free(bt_master *master);

static inline bool bt_slot_is_surplus(const bt_slot *slot)
{
    return slot->crew->is_leaving || slot->index >= slot->crew->config->count;
}

/* ---- slot.c, child.c ---- */

/* NULL: out of memory. */
bt_slot *bt_slot_new(bt_crew *crew, int index);

/* Freed when its timer is closed. It has no process and no wish any more. */
void bt_slot_free(bt_slot *slot);

/* Asks for a child of `generation`, forked when the loop has turned. */
void bt_slot_spawn(bt_slot *slot, bt_generation *generation);
void bt_slot_cancel_restart(bt_slot *slot);
void bt_slot_cancel_spawn(bt_slot *slot);

/* Its process has ended after `lived_ms`: another one comes, at once or, when they keep dying young, after a pause. */
void bt_slot_restart_later(bt_slot *slot, uint64_t lived_ms);

/* The fork that was asked for could not be done: treated as a successor that died at once. */
void bt_slot_fork_failed(bt_slot *slot, bt_generation *generation, const char *why);

/* Another process of the worker that serves, or NULL. */
bt_child *bt_slot_sibling(const bt_slot *slot);

/* The process that takes the connections of this slot's leaving ones: the one that serves it, or of a slot that goes, a
 * sibling. NULL: there is none now. */
bt_child *bt_slot_heir(const bt_slot *slot);

/* Takes the freshly forked process. NULL: out of memory (the caller kills it). */
bt_child *bt_child_new(bt_slot *slot, bt_generation *generation, pid_t pid, uint64_t number, int channel_fd,
                       bt_row *row);
void bt_child_exited(bt_child *child, int status);

/* A slot of an earlier image of the master in which nobody serves or starts gets a process, after this pause. */
void bt_slot_fill(bt_slot *slot, uint64_t pause_ms);

/* Takes a running process from an earlier image of the master: its channel, and what is known of it. */
bt_child *bt_child_adopt(const bt_child *facts, int channel_fd, uint64_t end_in_ms);

/* Sends DRAIN or STOP and arms the kill. `successor` takes the connections; NULL: nobody does now, and with `has_heir`
 * the process serves on until somebody does. `timeout_ms` may be BT_NO_LIMIT. */
void bt_child_drain(bt_child *child, bt_child *successor, bool has_heir, uint64_t timeout_ms);
void bt_child_stop(bt_child *child, uint64_t timeout_ms);

/* A drain without end gets one after all. */
void bt_child_limit(bt_child *child, uint64_t timeout_ms);
void bt_child_kill(bt_child *child);

/* "exit 1", "signal 11 (Segmentation fault)". Returns out. */
const char *bt_exit_text(int status, char *out, size_t size);

/* ---- spawn.c ---- */

/* Forks what slots and the roll have asked for. Called between turns of the loop, so that the child has no frame of the
 * loop below it. In a child it does not return. */
void bt_spawn_pending(bt_master *master);
bool bt_spawn_is_pending(const bt_master *master);

/* Fork for a helper that only computes: in the child (returns 0) only `keep_fd` of the registry stays open, and the
 * loop is gone. Returns the pid in the master, or a negative errno. */
BATON_NODISCARD pid_t bt_fork_clean(bt_master *master, const int *keep, size_t keep_count);

/* A free row of the shared table, zeroed; NULL when there is none. */
bt_row *bt_take_row(bt_master *master);
void bt_give_row(bt_master *master, const bt_row *row);

/* ---- prepare.c ---- */

/* Forks the helper that copies and checks the modules of roll.job (spawn.c calls it). */
void bt_prepare_fork(bt_master *master);
void bt_prepare_exited(bt_master *master, int status);
void bt_prepare_cancel(bt_master *master);

/* What the helper is making is not wanted any more: it fails with these words. */
void bt_prepare_give_up(bt_master *master, const char *why);

/* ---- reload.c, rollback.c: who asks, and what they hear ---- */

/* Asks for a reload of `crew` (NULL: all reloadable ones). `waiter` may be NULL; it hears the end exactly once. */
void bt_reload_request(bt_master *master, bt_crew *crew, bool without_limit, bt_waiter *waiter);

/* Everything is replaced, also what is not reloadable: the program is another one. Returns the job's serial. */
uint64_t bt_reload_for_upgrade(bt_master *master);

/* Goes back to the generation before the last one that proved itself: `crew`, or (NULL) all that took part in the
 * newest roll. */
void bt_rollback_request(bt_master *master, bt_crew *crew, bt_waiter *waiter);

/* A generation is ready (`why` NULL, the reference is taken over), or could not be made. The job is BT_JOB_DONE. */
void bt_reload_prepared(bt_master *master, bt_generation *generation, const char *why);

/* Tells those who wait for this job or an earlier one; with `ok`, only who waits for no more than `wait`. */
void bt_reload_answer(bt_master *master, uint64_t serial, bool ok, bt_wait wait, const char *message);

/* Keeps the result for `status`, and logs it. */
void bt_reload_remember(bt_master *master, uint64_t generation, bool ok, uint64_t since_ms, const char *message);

void bt_reload_progress(bt_master *master, const bt_slot *slot, const char *step, pid_t pid, uint64_t generation,
                        const char *detail);

/* The master stops: everybody who waits hears so. */
void bt_reload_cancel(bt_master *master, const char *why);

/* ---- roll.c, way_back.c, roll_end.c ---- */

void bt_roll_init(bt_master *master);

/* The first generation: all slots at once. */
void bt_roll_start_first(bt_master *master, bt_generation *generation);

/* Rolls every crew to its `next`, if it has one, and lets go of those that shall leave; overtakes whatever roll is
 * going on. `number` is what the roll is called; `whole` the generation whose [baton] settings apply, or NULL. */
void bt_roll_start(bt_master *master, const bt_reload_job *job, uint64_t number, bt_generation *whole);

/* Gives the drain that the roll waits for an end, if it had none: a reload that knows limits must not wait for ever. */
void bt_roll_end_patience(bt_master *master);

/* The master stops. */
void bt_roll_stop(bt_master *master);

/* The roll itself will fill the slot; nobody else restarts it. */
bool bt_roll_owns_slot(const bt_slot *slot);

/* What slot.c saw. */
void bt_roll_child_ready(bt_child *child);
void bt_roll_child_handed_over(bt_child *child);
void bt_roll_child_gone(bt_child *child, const char *reason, bool by_outside_kill);

/* A successor could not even be forked. */
void bt_roll_start_failed(bt_slot *slot, const bt_generation *generation, const char *reason);

/* The start is complete: a reload asked for meanwhile goes on. */
void bt_roll_resume(bt_master *master);

/* After an upgrade, or back from one: what was on probation still is, what was mixed is put right. */
void bt_roll_adopted(bt_master *master);

/* Back from an upgrade whose roll to `generation` has failed: workers that run it go back, stale processes too. All who
 * wait hear the reason when the old code serves. */
void bt_roll_go_back(bt_master *master, uint64_t generation, bool took_traffic, const char *reason);

/* The generation in which a crashed slot comes back. */
bt_generation *bt_roll_restart_generation(bt_slot *slot);

/* ---- supervise.c ---- */

/* A process asks to be replaced by a fresh one of the same generation. */
void bt_recycle_request(bt_child *child, const char *why);

/* Something has ended: the next slot that waits for a fresh process may get it. */
void bt_recycle_next(bt_master *master);

/* How long the process's loop has stood still, 0 when it turns. */
uint64_t bt_child_stuck_ms(const bt_child *child);
void bt_watch_init(bt_master *master);

/* ---- status.c ---- */

/* New JSON arrays for "generations" and the object for "config" (proc/control.h). NULL: out of memory. */
struct json_t *bt_generations_json(const bt_master *master);
struct json_t *bt_configs_json(const bt_master *master);

/* A new JSON object for "status" (proc/control.h), owned by the caller. NULL: out of memory. */
struct json_t *bt_status_json(bt_master *master);

#endif

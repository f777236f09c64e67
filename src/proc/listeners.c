/* proc/listeners.c: the listening sockets of all workers, by address. They belong to the address, not to a process or a
 * slot: a worker may move, shrink or be replaced by another one while connections wait in a queue.
 * Must not know who accepts, nor when a roll is over. */
#include <arpa/inet.h>
#include <base/alloc.h>
#include <base/log.h>
#include <errno.h>
#include <net/listener.h>
#include <proc/master_parts.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The protocol does not matter: a socket only knows its address. */
static bool same_place(const bt_listen_address *a, const bt_listen_address *b)
{
    if (a->is_unix != b->is_unix)
        return false;
    if (a->is_unix)
        return strcmp(a->path, b->path) == 0;
    return a->port == b->port && a->dual_stack == b->dual_stack && strcmp(a->host, b->host) == 0;
}

static bool is_any_port(const bt_listen_address *address)
{
    return !address->is_unix && address->port == 0;
}

bt_listen_set *bt_listeners_find(const bt_master *master, const bt_worker_config *config)
{
    if (config->listen == NULL)
        return NULL;
    bt_list_each (node, &master->listen_sets) {
        bt_listen_set *set = bt_container(node, bt_listen_set, node);
        if (!same_place(&set->address, &config->address))
            continue;
        /* port 0 is a different port for each worker */
        if (!is_any_port(&config->address) || (set->crew != NULL && strcmp(set->crew->name, config->name) == 0))
            return set;
    }
    return NULL;
}

bt_listen_set *bt_listeners_adopt(bt_master *master, const bt_listen_address *address, bt_crew *crew)
{
    bt_listen_set *set = bt_calloc(1, sizeof *set);
    if (set == NULL)
        return NULL;
    set->address = *address;
    set->crew = crew;
    bt_list_append(&master->listen_sets, &set->node);
    return set;
}

int bt_listeners_adopt_fd(bt_listen_set *set, int fd)
{
    int *fds = bt_realloc(set->fds, (set->count + 1) * sizeof *fds);
    if (fds == NULL)
        return -ENOMEM;
    set->fds = fds;
    fds[set->count++] = fd;
    return 0;
}

static void free_set(bt_listen_set *set)
{
    bt_list_remove(&set->node);
    free(set->fds);
    free(set);
}

/* Where the first socket is bound: the kernel may have chosen its port, a name server its host. Its siblings go to the
 * same place. */
static void take_bound_address(int fd, bt_listen_address *address)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    bt_address compact = {0};
    if (getsockname(fd, (struct sockaddr *) &bound, &len) == 0)
        bt_address_from_sockaddr(&compact, (const struct sockaddr *) &bound, len);
    if (is_any_port(address))
        address->port = compact.port;
    if (bt_listen_address_is_name(address))
        inet_ntop(compact.family, &compact.ip, address->resolved, sizeof address->resolved);
}

static int add_socket(bt_master *master, bt_listen_set *set, const bt_worker_config *config, bool one_each, char *why,
                      size_t size)
{
    bt_listen_address address = set->address;
    if (set->count > 0)
        take_bound_address(set->fds[0], &address);
    int fd = bt_listener_open(&address, (int) config->backlog, one_each, why, size);
    if (fd < 0)
        return fd;
    int err = bt_master_fd_add(master, fd);
    if (err == 0)
        err = bt_listeners_adopt_fd(set, fd);
    if (err < 0) {
        snprintf(why, size, "out of memory");
        bt_master_fd_remove(master, fd);
        close(fd);
    }
    return err;
}

/* A socket that was opened for all slots becomes one of several. */
static void let_share(const bt_listen_set *set)
{
    static const int yes = 1;
    for (size_t i = 0; i < set->count; i++)
        setsockopt(set->fds[i], SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
}

static bool has_one_each(const bt_worker_config *config)
{
    return config->reuse_port && !config->address.is_unix;
}

/* This worker uses it, and speaks this protocol there. */
static void claim(bt_listen_set *set, bt_crew *crew, const bt_worker_config *config)
{
    set->crew = crew;
    memcpy(set->address.scheme, config->address.scheme, sizeof set->address.scheme);
}

static void set_backlog(const bt_listen_set *set, int backlog)
{
    for (size_t i = 0; i < set->count; i++)
        listen(set->fds[i], backlog);
}

static int open_sockets(bt_master *master, bt_crew *crew, const bt_worker_config *config, size_t wanted, char *why,
                        size_t size)
{
    bool one_each = has_one_each(config);
    bt_listen_set *set = bt_listeners_find(master, config);
    bool is_new = set == NULL;
    if (is_new)
        set = bt_listeners_adopt(master, &config->address, crew);
    if (set == NULL) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    if (one_each && set->count < wanted)
        let_share(set);
    int err = 0;
    while (err == 0 && set->count < wanted)
        err = add_socket(master, set, config, one_each, why, size);
    if (err < 0 && set->count == 0) {
        free_set(set);
        return err;
    }
    claim(set, crew, config);
    if (!is_new)
        set_backlog(set, (int) config->backlog);
    return err;
}

int bt_listeners_open(bt_master *master, bt_crew *crew, const bt_worker_config *config, char *why, size_t size)
{
    return config->listen == NULL ? 0 : open_sockets(master, crew, config, 1, why, size);
}

int bt_listeners_provide(bt_master *master, bt_crew *crew, const bt_worker_config *config, char *why, size_t size)
{
    size_t wanted = has_one_each(config) ? (size_t) config->count : 1;
    return config->listen == NULL ? 0 : open_sockets(master, crew, config, wanted, why, size);
}

size_t bt_listeners_count(const bt_master *master, const bt_worker_config *config)
{
    const bt_listen_set *set = bt_listeners_find(master, config);
    return set == NULL ? 0 : set->count;
}

bool bt_listeners_are_missed(const bt_child *child)
{
    const bt_crew *crew = child->slot->crew;
    return child->sockets != 0 && bt_listeners_count(crew->master, crew->config) > child->sockets;
}

size_t bt_listeners_of_slot(const bt_listen_set *set, size_t index, size_t count, int *fds, size_t size)
{
    size_t found = 0;
    for (size_t i = index; i < set->count && found < size; i += count)
        fds[found++] = set->fds[i];
    if (found == 0 && size > 0) /* fewer sockets than slots: they share */
        fds[found++] = set->fds[index % set->count];
    return found;
}

/* ---- the end of an address ---- */

/* Somebody who speaks what the clients in the queue expect. */
static bt_child *find_taker(const bt_listen_set *set)
{
    const bt_crew *crew = set->crew;
    for (size_t i = 0; crew != NULL && i < crew->slot_count; i++) {
        bt_child *child = crew->slots[i]->serving;
        const bt_worker_config *config = child == NULL ? NULL : bt_generation_section(child->generation, crew->name);
        if (config != NULL && config->listen != NULL && strcmp(config->address.scheme, set->address.scheme) == 0)
            return child;
    }
    return NULL;
}

static void close_set(bt_master *master, bt_listen_set *set)
{
    if (set->address.is_unix)
        unlink(set->address.path);
    for (size_t i = 0; i < set->count; i++) {
        bt_master_fd_remove(master, set->fds[i]);
        close(set->fds[i]);
    }
    free_set(set);
}

static void retire(bt_master *master, bt_listen_set *set)
{
    char name[300];
    bt_child *taker = find_taker(set);
    bt_log(BT_LOG_INFO, "address-closed listen=%s", bt_listener_name(set->fds[0], name, sizeof name));
    for (size_t i = 0; taker != NULL && i < set->count; i++)
        bt_channel_send(&taker->channel, BT_MESSAGE_LISTEN_LAST, 0, NULL, set->fds[i]);
    close_set(master, set);
}

static bool is_used_by(const bt_crew *crew, const bt_generation *generation, const bt_listen_set *set)
{
    const bt_worker_config *config = generation == NULL ? NULL : bt_generation_section(generation, crew->name);
    return config != NULL && bt_listeners_find(crew->master, config) == set;
}

/* While a roll is going on its way back is used, too: that address could not be opened again beside processes that
 * still accept from it. */
static bool is_used(const bt_master *master, const bt_listen_set *set)
{
    bool may_go_back = master->roll.state != BT_ROLL_IDLE;
    for (size_t i = 0; i < master->crew_count; i++) {
        const bt_crew *crew = master->crews[i];
        if (crew->is_leaving)
            continue;
        if (bt_listeners_find(master, crew->config) == set)
            return true;
        if (may_go_back && (is_used_by(crew, crew->previous, set) || is_used_by(crew, crew->good, set)))
            return true;
    }
    return false;
}

/* Plans that came to nothing may have given an address to a worker that does not listen there after all. */
static void claim_all(bt_master *master)
{
    for (size_t i = 0; i < master->crew_count; i++) {
        bt_crew *crew = master->crews[i];
        bt_listen_set *set = crew->is_leaving ? NULL : bt_listeners_find(master, crew->config);
        if (set != NULL)
            claim(set, crew, crew->config);
    }
}

void bt_listeners_retire(bt_master *master)
{
    claim_all(master);
    bt_list_each (node, &master->listen_sets) {
        bt_listen_set *set = bt_container(node, bt_listen_set, node);
        if (!is_used(master, set))
            retire(master, set);
    }
}

void bt_listeners_close_all(bt_master *master)
{
    bt_list_each (node, &master->listen_sets)
        close_set(master, bt_container(node, bt_listen_set, node));
}

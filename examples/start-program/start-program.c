/* start-program: three workers in a C main, and what `reload` renews of each.
 *
 *   port    where the code is                               renewed by
 *   18110   a callback in this program                      restart
 *   18120   preloaded.so, loaded by main before the fork    restart
 *   18121   handler.so, loaded in on_worker_start           reload
 *
 * The rule behind it: a reload replaces processes, and a new process begins as a fork of the master. What the master
 * had in memory before the fork it has as well; only what a process loads itself, after the fork, is new.
 *
 *   build/examples/start-program/start-program start
 *   build/examples/start-program/start-program reload */
#include <baton.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *(*preloaded_text)(void);

/* Case 1: these bytes are part of the program. */
static void answer_from_program(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", "program 1");
}

/* Case 2: the function comes from a file, but main has loaded it, long before this process existed. */
static void answer_from_preloaded(baton_conn *conn, const baton_request *req)
{
    (void) req;
    baton_reply(conn, 200, "text/plain", preloaded_text());
}

/* Case 3: every process loads the module after the fork, from the private copy that belongs to its
 * generation. handler.so sets its own on_request. */
static int load_handler(baton_worker *worker)
{
    return baton_worker_load(worker, "handler.so");
}

/* dlopen searches a bare name in the system's folders, not beside the program. */
static int load_preloaded(void)
{
    char path[4096];
    void *library;
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - sizeof("preloaded.so"));

    if (len < 0)
        return -1;
    path[len] = '\0';
    strcpy(strrchr(path, '/') + 1, "preloaded.so");
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "start-program: %s\n", dlerror());
        return -1;
    }
    /* The way POSIX gives to get a function out of dlsym's void pointer. */
    *(void **) &preloaded_text = dlsym(library, "preloaded_text");
    return preloaded_text ? 0 : -1;
}

int main(int argc, char **argv)
{
    if (load_preloaded() < 0)
        return 1;

    baton_worker_new("http://127.0.0.1:18110", .name = "program", .count = 2,
                     .callbacks = {.on_request = answer_from_program});
    baton_worker_new("http://127.0.0.1:18120", .name = "preloaded", .count = 2,
                     .callbacks = {.on_request = answer_from_preloaded});
    baton_worker_new("http://127.0.0.1:18121", .name = "module", .count = 2, .module_files = "handler.so",
                     .callbacks = {.on_worker_start = load_handler});

    return baton_run(argc, argv);
}

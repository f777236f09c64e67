/* proc/generation.h: the immutable private copy of the modules of one generation:
 * <run_dir>/modules/<number>/<worker>/NAME.so, files 0444, directories 0755.
 *
 * Knows files and ELF headers; loads nothing. bt_generation_build runs in a helper process, because reading and
 * hashing block; the other functions are quick enough for the master. */
#ifndef BT_PROC_GENERATION_H
#define BT_PROC_GENERATION_H

#include <proc/config.h>

typedef struct bt_module_copy {
    char worker[64];
    char path[512];    /* of the pinned copy; "" when the worker has no module */
    char sha256[65];   /* of the module, hex */
    char build_id[65]; /* GNU build id, hex; "" when there is none */
} bt_module_copy;

/* Copies the module and module_files of one worker into `<run_dir>/modules/<number>/<worker>/` (temporary name in
 * the same directory, fsync not needed, rename) after checking the module: regular file, ELF64 (or the class of this
 * program), ET_DYN, this machine's e_machine, section and program header tables and every PT_LOAD segment inside the
 * file's size (a truncated .so gives SIGBUS in dlopen). Checks the copy, not the original (which a deploy may be
 * overwriting right now), and that the original did not change while it was copied (size, mtime, ctime before and
 * after): retries up to 5 times, 20 ms apart. module_files that begin with the ELF magic get the same check. Two files
 * with the same name: error. Returns 0 or a negative errno with one line in `why` that names the file:
 * "/srv/hello.so: truncated: segment 2 ends at byte 16384, the file has 8192". */
BATON_NODISCARD int bt_generation_build(const char *run_dir, uint64_t number, const bt_worker_config *worker,
                                        bt_module_copy *out, char *why, size_t why_size);

/* Removes one generation's directory. Missing is not an error. */
BATON_NODISCARD int bt_generation_remove(const char *run_dir, uint64_t number);

/* Removes all generations left by an earlier master, called with the pid file's lock held. Only touches
 * directories whose names are numbers below <run_dir>/modules. */
BATON_NODISCARD int bt_generation_remove_all(const char *run_dir);

#endif

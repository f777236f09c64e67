/* proc/generation.c: pins the modules of a generation as files that nobody writes any more, and removes them.
 * Knows files and ELF headers; loads nothing. */
#include <proc/generation.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <proc/elf_check.h>
#include <proc/pidfile.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    COPY_ATTEMPTS = 5,
    RETRY_MS = 20,
    /* Kernels stamp files by a clock that ticks every 1 to 10 ms: what changed within the last tick can change
     * again without its times showing it. */
    SETTLED_MS = 10,
    WALK_DESCRIPTORS = 16,
};

/* Where the one line for the user goes. */
typedef struct reason {
    char *why;
    size_t size;
} reason;

/* Says why and returns `err`. */
__attribute__((format(printf, 3, 4))) static int fail(const reason *words, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(words->why, words->size, format, args);
    va_end(args);
    return err;
}

static int fail_errno(const reason *words, int err, const char *path, const char *what)
{
    return fail(words, err, "%s: %s: %s", path, what, strerror(-err));
}

/* ---- one file ---- */

typedef struct copy {
    const char *source;
    char target[sizeof(((bt_module_copy *) 0)->path)];
    char temporary[sizeof(((bt_module_copy *) 0)->path)];
    bool is_module; /* must be a shared object; other files only if they look like one */
    char sha256[65];
    char build_id[65];
} copy;

static bool same_file_unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static bool is_settled(const struct stat *status)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    int64_t age_ms = ((int64_t) now.tv_sec - status->st_ctim.tv_sec) * 1000 +
                     ((int64_t) now.tv_nsec - status->st_ctim.tv_nsec) / 1000000;
    /* Times in the future come from another machine's clock and say nothing. */
    return age_ms < 0 || age_ms >= SETTLED_MS;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t) n;
    }
    return 0;
}

/* Copies and hashes in one reading, so that the hash is that of the copy. */
static int copy_bytes(int from, int to, EVP_MD_CTX *hash, const copy *file, const reason *words)
{
    char data[65536];
    for (;;) {
        ssize_t n = read(from, data, sizeof(data));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(words, -errno, file->source, "cannot be read");
        if (n == 0)
            return 0;
        int err = write_all(to, data, (size_t) n);
        if (err)
            return fail_errno(words, err, file->temporary, "cannot be written");
        if (EVP_DigestUpdate(hash, data, (size_t) n) != 1)
            return fail(words, -EIO, "%s: cannot be hashed", file->source);
    }
}

static int copy_and_hash(int from, int to, copy *file, const reason *words)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (!hash)
        return fail(words, -ENOMEM, "%s: out of memory", file->source);
    int err = 0;
    if (EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1)
        err = fail(words, -EIO, "%s: cannot be hashed", file->source);
    if (err == 0)
        err = copy_bytes(from, to, hash, file, words);
    if (err == 0 && EVP_DigestFinal_ex(hash, digest, &len) != 1)
        err = fail(words, -EIO, "%s: cannot be hashed", file->source);
    EVP_MD_CTX_free(hash);
    for (unsigned i = 0; err == 0 && i < len && 2 * i + 2 < sizeof(file->sha256); i++)
        snprintf(file->sha256 + 2 * (size_t) i, 3, "%02x", digest[i]);
    return err;
}

/* Returns -EAGAIN when the original is being changed. */
static int copy_unchanged(int from, int to, copy *file, const reason *words)
{
    struct stat before;
    struct stat after;
    if (fstat(from, &before) != 0)
        return fail_errno(words, -errno, file->source, "cannot be read");
    if (S_ISDIR(before.st_mode))
        return fail(words, -EISDIR, "%s: is a directory", file->source);
    if (!S_ISREG(before.st_mode))
        return fail(words, -EINVAL, "%s: is not a regular file", file->source);
    if (!is_settled(&before))
        return -EAGAIN;
    int err = copy_and_hash(from, to, file, words);
    if (err)
        return err;
    /* By name: a deploy may also have put another file in its place. */
    if (stat(file->source, &after) != 0 || !same_file_unchanged(&before, &after))
        return -EAGAIN;
    return 0;
}

/* Checks the copy. Mapping it is safe, unlike mapping the original: nobody else writes it. */
static int check_copy(int fd, copy *file, const reason *words)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return fail_errno(words, -errno, file->temporary, "cannot be read");
    size_t size = (size_t) status.st_size;
    void *image = NULL;
    if (size > 0) {
        image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (image == MAP_FAILED)
            return fail_errno(words, -errno, file->temporary, "cannot be mapped");
    }
    int err = 0;
    if (file->is_module || bt_elf_has_magic(image, size)) {
        char why[160] = "";
        err = bt_elf_check(image, size, why, sizeof(why));
        if (err)
            fail(words, err, "%s: %s", file->source, why);
        else
            bt_elf_build_id(image, size, file->build_id, sizeof(file->build_id));
    }
    if (image)
        munmap(image, size);
    return err;
}

static int copy_once(copy *file, const reason *words)
{
    unlink(file->temporary);
    /* Non-blocking: opening a FIFO would wait for its writer. */
    int from = open(file->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from < 0)
        return fail_errno(words, -errno, file->source, "cannot be read");
    int to = open(file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (to < 0) {
        int err = fail_errno(words, -errno, file->temporary, "cannot be written");
        close(from);
        return err;
    }
    int err = copy_unchanged(from, to, file, words);
    if (err == 0)
        err = check_copy(to, file, words);
    if (err == 0 && fchmod(to, 0444) != 0) /* whatever the umask: `user = nobody` must be able to load it */
        err = fail_errno(words, -errno, file->temporary, "cannot be made readable");
    close(to);
    close(from);
    return err;
}

static int copy_file(copy *file, const reason *words)
{
    int err = copy_once(file, words);
    for (int attempt = 1; err == -EAGAIN && attempt < COPY_ATTEMPTS; attempt++) {
        const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
        nanosleep(&pause, NULL);
        err = copy_once(file, words);
    }
    if (err == -EAGAIN)
        err = fail(words, -EBUSY, "%s: changes while it is copied: is it still being written?", file->source);
    if (err == 0 && rename(file->temporary, file->target) != 0)
        err = fail_errno(words, -errno, file->target, "cannot be written");
    if (err)
        unlink(file->temporary);
    return err;
}

/* ---- the files of a worker ---- */

/* Makes <run_dir>/modules/<number>/<worker> and writes its path to `out`. */
static int make_dirs(const char *run_dir, uint64_t number, const char *worker, char *out, size_t size,
                     const reason *words)
{
    if (worker[0] == '\0' || worker[0] == '.' || strchr(worker, '/'))
        return fail(words, -EINVAL, "worker \"%s\": its name cannot be that of a directory", worker);
    if ((size_t) snprintf(out, size, "%s/modules/%" PRIu64 "/%s", run_dir, number, worker) >= size)
        return fail(words, -ENAMETOOLONG, "%s: the path of run_dir is too long", run_dir);
    int err = bt_make_parent_dirs(out, 0755);
    if (err == 0 && mkdir(out, 0755) != 0 && errno != EEXIST)
        err = -errno;
    if (err)
        return fail_errno(words, err, out, "cannot be made");

    /* Whatever the umask: `user = nobody` must be able to reach what is inside. */
    char dir[PATH_MAX];
    snprintf(dir, sizeof(dir), "%s", out);
    for (int level = 0; level < 3; level++) {
        if (chmod(dir, 0755) != 0)
            return fail_errno(words, -errno, dir, "cannot be made readable");
        *strrchr(dir, '/') = '\0';
    }
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Splits off the next path of a blank-separated list. Returns its length, 0 at the end. */
static size_t next_path(const char **list)
{
    *list += strspn(*list, " \t");
    return strcspn(*list, " \t");
}

/* True when the module or a path of `list` before `end` has the same name: the copies would overwrite each other. */
static bool name_is_taken(const char *module, const char *list, const char *end, const char *name)
{
    if (module && strcmp(base_name(module), name) == 0)
        return true;
    for (size_t len = next_path(&list); len > 0 && list < end; list += len, len = next_path(&list)) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%.*s", (int) len, list);
        if (strcmp(base_name(path), name) == 0)
            return true;
    }
    return false;
}

static int copy_into(const char *dir, const char *source, bool is_module, copy *file, const reason *words)
{
    *file = (copy){.source = source, .is_module = is_module};
    size_t size = sizeof(file->target);
    if ((size_t) snprintf(file->target, size, "%s/%s", dir, base_name(source)) >= size ||
        (size_t) snprintf(file->temporary, size, "%s/.copying", dir) >= size)
        return fail(words, -ENAMETOOLONG, "%s: the path of its copy in %s is too long", source, dir);
    return copy_file(file, words);
}

static int copy_module_files(const char *dir, const bt_worker_config *worker, const reason *words)
{
    const char *const first = worker->module_files ? worker->module_files : "";
    const char *list = first;
    for (size_t len = next_path(&list); len > 0; list += len, len = next_path(&list)) {
        char path[PATH_MAX];
        if (len >= sizeof(path))
            return fail(words, -ENAMETOOLONG, "worker \"%s\": a path in module_files is too long", worker->name);
        memcpy(path, list, len);
        path[len] = '\0';
        if (name_is_taken(worker->module, first, list, base_name(path)))
            return fail(words, -EEXIST, "%s: another file of worker \"%s\" has the same name", path, worker->name);
        copy file;
        int err = copy_into(dir, path, false, &file, words);
        if (err)
            return err;
    }
    return 0;
}

int bt_generation_build(const char *run_dir, uint64_t number, const bt_worker_config *worker, bt_module_copy *out,
                        char *why, size_t why_size)
{
    const reason words = {.why = why, .size = why_size};
    *out = (bt_module_copy){0};
    if ((size_t) snprintf(out->worker, sizeof(out->worker), "%s", worker->name) >= sizeof(out->worker))
        return fail(&words, -ENAMETOOLONG, "worker \"%s\": its name is too long", worker->name);
    char dir[sizeof(out->path)];
    int err = make_dirs(run_dir, number, worker->name, dir, sizeof(dir), &words);
    if (err)
        return err;
    if (worker->module) {
        copy file;
        err = copy_into(dir, worker->module, true, &file, &words);
        if (err)
            return err;
        memcpy(out->path, file.target, sizeof(out->path));
        memcpy(out->sha256, file.sha256, sizeof(out->sha256));
        memcpy(out->build_id, file.build_id, sizeof(out->build_id));
    }
    return copy_module_files(dir, worker, &words);
}

/* ---- removal ---- */

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void) status;
    (void) type;
    (void) walk;
    return remove(path) == 0 || errno == ENOENT ? 0 : -errno;
}

int bt_generation_remove(const char *run_dir, uint64_t number)
{
    char dir[PATH_MAX];
    if ((size_t) snprintf(dir, sizeof(dir), "%s/modules/%" PRIu64, run_dir, number) >= sizeof(dir))
        return -ENAMETOOLONG;
    /* Links are removed, not followed; a mount below is not ours. */
    int err = nftw(dir, remove_entry, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (err == -1)
        return errno == ENOENT ? 0 : -errno;
    return err;
}

int bt_generation_remove_all(const char *run_dir)
{
    char path[PATH_MAX];
    if ((size_t) snprintf(path, sizeof(path), "%s/modules", run_dir) >= sizeof(path))
        return -ENAMETOOLONG;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    int first_err = 0;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        struct stat status;
        if (entry->d_name[strspn(entry->d_name, "0123456789")] != '\0')
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(status.st_mode))
            continue;
        int err = bt_generation_remove(run_dir, strtoull(entry->d_name, NULL, 10));
        first_err = first_err ? first_err : err;
    }
    closedir(dir);
    return first_err;
}

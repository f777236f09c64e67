/* app/module.c: brings a module's code into this process and reads its descriptor.
 * Never unloads: code of a module may be referenced for as long as the process lives. */
#include <app/module.h>

#include <baton/version.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The loader's words, without the directory of the pinned copy: people know the file by its name. */
static int fail_with_loader_words(const char *path, char *why, size_t why_size)
{
    const char *words = dlerror();
    size_t len = strlen(path);
    if (words && strncmp(words, path, len) == 0 && words[len] == ':')
        words += len + strspn(words + len, ": ");
    snprintf(why, why_size, "%s: %s", base_name(path), words ? words : "the loader gives no reason");
    return -ENOEXEC;
}

/* A module linked against another libbaton than ours would talk to a second framework that serves nobody.
 * Objects are compared, not functions: one function can have two addresses. */
static bool has_second_libbaton(void *handle)
{
    const void *theirs = dlsym(handle, "baton_version");
    Dl_info their_object;
    Dl_info our_object;
    if (!theirs || !dladdr(theirs, &their_object))
        return false;
    return dladdr(&bt_module_load, &our_object) && our_object.dli_fbase != their_object.dli_fbase;
}

/* Bytes that the symbol at `address` really has; 0 when it is not data. */
static size_t size_of_symbol(const void *address)
{
    Dl_info info;
    void *entry = NULL;
    if (!dladdr1(address, &info, &entry, RTLD_DL_SYMENT) || !entry)
        return 0;
    const ElfW(Sym) *symbol = entry;
    return (symbol->st_info & 0xf) == STT_OBJECT ? symbol->st_size : 0;
}

static bool all_zero(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static int read_descriptor(const baton_module_descriptor *found, const char *name, baton_callbacks *callbacks,
                           char *why, size_t why_size)
{
    const size_t head = offsetof(baton_module_descriptor, callbacks);
    size_t symbol_size = size_of_symbol(found);
    if (symbol_size < head) {
        snprintf(why, why_size, "%s: its baton_module was not made by BATON_MODULE(...)", name);
        return -EINVAL;
    }
    if (found->abi != BATON_ABI) {
        snprintf(why, why_size, "%s: built for ABI %u, this baton has ABI %u: rebuild the module", name,
                 (unsigned) found->abi, BATON_ABI);
        return -EPROTO;
    }
    if (found->size < head || found->size > symbol_size || (found->size - head) % sizeof(found->callbacks.on_close)) {
        snprintf(why, why_size, "%s: its baton_module has the impossible size %u", name, (unsigned) found->size);
        return -EINVAL;
    }
    size_t known = found->size < sizeof(*found) ? found->size : sizeof(*found);
    if (!all_zero((const char *) found + known, found->size - known)) {
        snprintf(why, why_size, "%s: uses callbacks that this baton (%s) does not know: upgrade baton", name,
                 baton_version());
        return -EPROTO;
    }
    memcpy(callbacks, &found->callbacks, known - head);
    return 0;
}

int bt_module_load(const char *path, baton_callbacks *callbacks, char *why, size_t why_size)
{
    *callbacks = (baton_callbacks){0};
    const char *name = base_name(path);
    if (name == path) {
        /* The loader would look for it in the system's libraries. */
        snprintf(why, why_size, "%s: its path has no directory", name);
        return -EINVAL;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return fail_with_loader_words(path, why, why_size);
    /* The handle is dropped on purpose, also below: constructors have run and may have left pointers to the code. */

    if (has_second_libbaton(handle)) {
        snprintf(why, why_size, "%s: brings a second libbaton: link it without -lbaton", name);
        return -EPROTO;
    }
    const baton_module_descriptor *found = dlsym(handle, "baton_module");
    if (!found) {
        snprintf(why, why_size, "%s: no symbol baton_module: is BATON_MODULE(...) missing?", name);
        return -ENOENT;
    }
    return read_descriptor(found, name, callbacks, why, why_size);
}

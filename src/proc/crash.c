/* proc/crash.c: signal handlers that write one line and let the process die.
 * Must not call anything that is not async-signal-safe once a signal is there: no stdio, no malloc, no loader, no libc
 * time zones. What the line needs is prepared before.
 *
 *     2026-11-21T21:10:35.123Z error web.0[4712] crashed signal=11 at=hello.so+0x1139 address=0x0 */
#include <base/clock.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <proc/crash.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define MAX_MODULES 256
#define STACK_BYTES (32 * 1024)

typedef struct module {
    uintptr_t start; /* of its code */
    uintptr_t end;
    uintptr_t base; /* what addr2line wants subtracted */
    char name[48];
} module;

/* A handler is given nothing but the signal: what it needs is the one process-wide object of this file. */
static struct {
    char role[64];
    pid_t pid;
    bt_log_tail *tail;
    module modules[MAX_MODULES];
    size_t module_count;
    char stack[STACK_BYTES]; /* the process's own may be what has overflowed */
} crash;

/* ---- a line without stdio ---- */

typedef struct line {
    char text[256];
    size_t len;
} line;

static void add(line *out, const char *text)
{
    while (*text != '\0' && out->len < sizeof out->text - 1) /* the line feed always fits */
        out->text[out->len++] = *text++;
}

static void add_number(line *out, uint64_t value, unsigned base, unsigned min_digits)
{
    char digits[32];
    char *at = digits + sizeof digits - 1;
    *at = '\0';
    for (unsigned i = 0; i < min_digits || value > 0; i++, value /= base)
        *--at = "0123456789abcdef"[value % base];
    add(out, at);
}

static void add_hex(line *out, uint64_t value)
{
    add(out, "0x");
    add_number(out, value, 16, 1);
}

/* Days since 1970-01-01 to a date of the Gregorian calendar, in years that begin in March so that the leap day is the
 * last: gmtime_r is not async-signal-safe. */
static void add_date(line *out, uint64_t days)
{
    uint64_t shifted = days + 719468; /* since 0000-03-01 */
    uint64_t era = shifted / 146097;
    uint64_t day_of_era = shifted % 146097;
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month = (5 * day_of_year + 2) / 153; /* 0: March */
    uint64_t day = day_of_year - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    add_number(out, era * 400 + year_of_era + (month <= 2), 10, 4);
    add(out, "-");
    add_number(out, month, 10, 2);
    add(out, "-");
    add_number(out, day, 10, 2);
}

static void add_time(line *out)
{
    uint64_t now_ms = bt_clock_wall_ms();
    uint64_t seconds = now_ms / 1000;
    add_date(out, seconds / 86400);
    add(out, "T");
    add_number(out, seconds / 3600 % 24, 10, 2);
    add(out, ":");
    add_number(out, seconds / 60 % 60, 10, 2);
    add(out, ":");
    add_number(out, seconds % 60, 10, 2);
    add(out, ".");
    add_number(out, now_ms % 1000, 10, 3);
    add(out, "Z");
}

/* ---- where ---- */

static uintptr_t program_counter(const void *context)
{
    const ucontext_t *machine = context;
#if defined(__x86_64__)
    return (uintptr_t) machine->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t) machine->uc_mcontext.pc;
#else
    (void) machine;
    return 0;
#endif
}

/* /proc/self/maps, a byte at a time: a handler may open and read, but not allocate. */
typedef struct maps {
    int fd;
    char bytes[1024];
    ssize_t len;
    ssize_t next;
} maps;

typedef struct mapping {
    uintptr_t start;
    uintptr_t end;
    uintptr_t offset;
    char name[48]; /* of the file, without its folder; "" when there is none */
} mapping;

/* '\0' at the end. */
static char next_char(maps *from)
{
    if (from->next == from->len) {
        from->next = 0;
        from->len = read(from->fd, from->bytes, sizeof from->bytes);
    }
    return from->len <= 0 ? '\0' : from->bytes[from->next++];
}

static uintptr_t next_number(maps *from)
{
    uintptr_t value = 0;
    for (;;) {
        char c = next_char(from);
        if (c >= '0' && c <= '9')
            value = value * 16 + (uintptr_t) (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uintptr_t) (c - 'a') + 10;
        else
            return value;
    }
}

static void skip_word(maps *from)
{
    char c;
    while ((c = next_char(from)) != ' ' && c != '\0')
        ;
}

/* "start-end permissions offset device inode   path". False at the end. */
static bool next_mapping(maps *from, mapping *out)
{
    out->start = next_number(from);
    out->end = next_number(from);
    skip_word(from);
    out->offset = next_number(from);
    skip_word(from);
    bool is_file = false;
    size_t len = 0;
    char c;
    while ((c = next_char(from)) != '\n' && c != '\0') {
        is_file = is_file || c == '/';
        if (c == '/')
            len = 0;
        else if (len < sizeof out->name - 1)
            out->name[len++] = c;
    }
    out->name[is_file ? len : 0] = '\0';
    return out->end != 0;
}

/* Of code that has come since the table was made: the loader is in a constructor, or the application has loaded a
 * library itself. False when it is in no file. */
static bool add_mapped_place(line *out, uintptr_t at)
{
    maps from = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    mapping found;
    uintptr_t base = 0;
    bool is_found = false;
    while (from.fd >= 0 && !is_found && next_mapping(&from, &found)) {
        if (found.offset == 0 && found.name[0] != '\0')
            base = found.start;
        is_found = at >= found.start && at < found.end;
    }
    if (from.fd >= 0)
        close(from.fd);
    if (!is_found || found.name[0] == '\0')
        return false;
    add(out, found.name);
    add(out, "+");
    add_hex(out, at - base);
    return true;
}

static void add_place(line *out, uintptr_t at)
{
    for (size_t i = 0; i < crash.module_count; i++) {
        const module *found = &crash.modules[i];
        if (at >= found->start && at < found->end) {
            add(out, found->name);
            add(out, "+");
            add_hex(out, at - found->base);
            return;
        }
    }
    if (!add_mapped_place(out, at))
        add_hex(out, at);
}

static int note_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void) size;
    (void) arg;
    const char *name = info->dlpi_name[0] == '\0' ? program_invocation_short_name : info->dlpi_name;
    const char *slash = strrchr(name, '/');
    for (int i = 0; i < info->dlpi_phnum && crash.module_count < MAX_MODULES; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        module *noted = &crash.modules[crash.module_count++];
        noted->base = (uintptr_t) info->dlpi_addr;
        noted->start = noted->base + (uintptr_t) part->p_vaddr;
        noted->end = noted->start + (uintptr_t) part->p_memsz;
        snprintf(noted->name, sizeof noted->name, "%s", slash == NULL ? name : slash + 1);
    }
    return 0;
}

void bt_crash_note_modules(void)
{
    crash.module_count = 0;
    dl_iterate_phdr(note_object, NULL);
}

/* ---- the signal ---- */

/* As base/log.c keeps its lines: whoever was writing there has just crashed, so that there is still one writer. */
static void append_tail(bt_log_tail *tail, const line *text)
{
    uint64_t written = atomic_load_explicit(&tail->written, memory_order_relaxed);
    for (size_t i = 0; i < text->len; i++)
        tail->bytes[(written + i) % BT_LOG_TAIL_BYTES] = text->text[i];
    atomic_store_explicit(&tail->written, written + text->len, memory_order_release);
}

static void describe(line *out, int signal_number, const siginfo_t *info, const void *context)
{
    add_time(out);
    add(out, " error ");
    add(out, crash.role);
    add(out, "[");
    add_number(out, (uint64_t) getpid(), 10, 1);
    add(out, "] crashed signal=");
    add_number(out, (uint64_t) signal_number, 10, 1);
    add(out, " at=");
    add_place(out, program_counter(context));
    if (info->si_code > 0) {
        add(out, " address=");
        add_hex(out, (uintptr_t) info->si_addr);
    } else if (info->si_pid != getpid()) {
        add(out, " sent_by=");
        add_number(out, (uint64_t) info->si_pid, 10, 1);
    }
    out->text[out->len++] = '\n';
}

static void on_crash(int signal_number, siginfo_t *info, void *context)
{
    line text = {.len = 0};
    describe(&text, signal_number, info, context);
    ssize_t n = write(bt_log_fd(), text.text, text.len);
    (void) n;                             /* there is no other place to say it */
    bool is_ours = getpid() == crash.pid; /* not a child that the application has forked */
    if (is_ours && crash.tail != NULL)
        append_tail(crash.tail, &text);
    /* SA_RESETHAND has put the default back. A fault happens again when this returns, at the same place and with the
     * same registers, which is what a core file should show; a signal that was sent must be sent again. */
    if (info->si_code <= 0)
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal_number);
}

void bt_crash_watch(const char *role, bt_log_tail *tail)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    snprintf(crash.role, sizeof crash.role, "%s", role);
    crash.pid = getpid();
    crash.tail = tail;
    bt_crash_note_modules();
    const stack_t stack = {.ss_sp = crash.stack, .ss_size = sizeof crash.stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | (int) SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

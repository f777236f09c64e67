/* app/ini.c: baton.ini into a configuration, with the line of every mistake.
 * Knows the file's syntax; what a setting means is settings.c's business.
 *
 * libinih splits long lines, takes indented lines as continuations, cuts section names at 49 bytes and tells the
 * handler no line. So it reads through next_line(), which counts, refuses what it would misread, and follows the
 * sections itself. */
#include <app/settings.h>

#include <base/buf.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONGEST_LINE 199
#define MOST_ERRORS  20
#define MOST_KEYS    64

typedef enum section_kind {
    SECTION_NONE, /* above the first header */
    SECTION_MASTER,
    SECTION_WORKER,
    SECTION_SKIPPED, /* its header was refused: one error is enough */
} section_kind;

typedef struct reader {
    FILE *stream;
    const char *file;
    char **errors;
    bt_config *config;
    int error_count;
    int line;
    char *text; /* getline's buffer */
    size_t text_size;
    bt_buf kept; /* every byte so far */

    section_kind section;
    bt_worker_config *worker;
    int master_line;            /* where [baton] began; 0: not yet */
    int set_in_line[MOST_KEYS]; /* of each key in this section, by its place in the table; 0: not yet */
    int setting_line;           /* a line that should be a setting and has not reached the handler yet; 0: none */
    char setting_start[40];     /* its beginning, for the error */
    bool out_of_memory;
} reader;

static void __attribute__((format(printf, 3, 4))) complain(reader *in, int line, const char *format, ...)
{
    if (in->error_count++ >= MOST_ERRORS) {
        if (in->error_count == MOST_ERRORS + 1)
            bt_add_line(in->errors, "%s: more errors follow", in->file);
        return;
    }
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    bt_add_line(in->errors, "%s:%d: %s", in->file, line, text);
}

static void enter_worker(reader *in, const char *name)
{
    char why[160];
    if (bt_config_find_worker(in->config, name)) {
        complain(in, in->line, "worker %s: there is already a section of that name", name);
        return;
    }
    if (bt_worker_name_check(name, why, sizeof(why)) < 0) {
        complain(in, in->line, "[worker %s]: %s", name, why);
        return;
    }
    in->worker = bt_config_add_worker(in->config, name);
    if (in->worker)
        in->section = SECTION_WORKER;
    else
        in->out_of_memory = true;
}

/* `header` is what stands between the brackets. */
static void enter_section(reader *in, char *header)
{
    char *position;
    char *kind = strtok_r(header, " \t", &position);
    char *name = strtok_r(NULL, " \t", &position);
    bool has_more = strtok_r(NULL, " \t", &position) != NULL;

    in->section = SECTION_SKIPPED;
    memset(in->set_in_line, 0, sizeof(in->set_in_line));
    if (kind && strcmp(kind, "worker") == 0) {
        if (!name)
            complain(in, in->line, "[worker] needs a name, such as [worker web]");
        else if (has_more)
            complain(in, in->line, "[worker %s ...]: a worker's name has no blanks", name);
        else
            enter_worker(in, name);
        return;
    }
    if (!kind || strcmp(kind, "baton") != 0 || name) {
        complain(in, in->line, "unknown section [%s%s%s]: there are [baton] and [worker NAME]", kind ? kind : "",
                 name ? " " : "", name ? name : "");
        return;
    }
    if (in->master_line) {
        complain(in, in->line, "[baton]: there is already one in line %d", in->master_line);
        return;
    }
    in->master_line = in->line;
    in->section = SECTION_MASTER;
}

static void read_header(reader *in, char *line)
{
    char *end = strchr(line, ']');
    if (!end) {
        complain(in, in->line, "section header without \"]\"");
        in->section = SECTION_SKIPPED;
        return;
    }
    const char *rest = end + 1 + strspn(end + 1, " \t");
    if (*rest && *rest != ';' && *rest != '#') {
        complain(in, in->line, "text after \"]\": a setting needs a line of its own");
        in->section = SECTION_SKIPPED;
        return;
    }
    *end = '\0';
    enter_section(in, line + 1);
}

/* What libinih took for neither a comment, a header nor NAME = VALUE never reached the handler. */
static void check_last_setting(reader *in)
{
    if (in->setting_line)
        complain(in, in->setting_line, "\"%s\" is not a setting: NAME = VALUE is expected", in->setting_start);
    in->setting_line = 0;
}

static bool is_clean(reader *in, const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char) line[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            complain(in, in->line, "control byte 0x%02x in column %zu", c, i + 1);
            return false;
        }
    }
    return true;
}

/* True when libinih may see the line. */
static bool look_at(reader *in, char *line, size_t len)
{
    const char *text = line + strspn(line, " \t");
    if (*text == '\0' || *text == ';' || *text == '#')
        return len <= LONGEST_LINE;
    if (len > LONGEST_LINE) {
        complain(in, in->line, "line of %zu bytes: at most %d are allowed", len, LONGEST_LINE);
        return false;
    }
    if (text > line) {
        complain(in, in->line, "indented line: sections and settings begin in the first column");
        return false;
    }
    if (*line == '[') {
        char copy[LONGEST_LINE + 1];
        memcpy(copy, line, len + 1);
        read_header(in, copy);
        return false;
    }
    if (*line == '=' || *line == ':') {
        complain(in, in->line, "no name before \"%c\"", *line);
        return false;
    }
    in->setting_line = in->line;
    snprintf(in->setting_start, sizeof(in->setting_start), "%s", line);
    return true;
}

/* ini_reader: like fgets. A line that libinih must not see becomes an empty one. */
static char *next_line(char *out, int size, void *arg)
{
    reader *in = arg;
    check_last_setting(in);
    errno = 0;
    ssize_t got = getline(&in->text, &in->text_size, in->stream);
    if (got < 0) {
        if (errno == ENOMEM)
            in->out_of_memory = true;
        else if (ferror(in->stream))
            complain(in, in->line + 1, "cannot read: %s", strerror(errno));
        return NULL;
    }
    in->line++;
    if (bt_buf_append(&in->kept, in->text, (size_t) got) < 0) {
        in->out_of_memory = true;
        return NULL;
    }

    char *line = in->text;
    size_t len = (size_t) got;
    while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    line[len] = '\0';
    if (in->line == 1 && len >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3; /* the byte order mark some editors write */
        len -= 3;
    }
    bool shown = is_clean(in, line, len) && look_at(in, line, len);
    snprintf(out, (size_t) size, "%s\n", shown ? line : "");
    return out;
}

/* True after an error about a second setting of the same key. Unknown keys are the setter's to complain about. */
static bool is_repeated(reader *in, const bt_setting *table, const char *prefix, const char *key)
{
    const bt_setting *setting = bt_setting_find(table, key);
    if (!setting)
        return false;
    size_t place = (size_t) (setting - table);
    if (place >= MOST_KEYS)
        return false;
    if (in->set_in_line[place]) {
        complain(in, in->line, "%s%s: already set in line %d", prefix, key, in->set_in_line[place]);
        return true;
    }
    in->set_in_line[place] = in->line;
    return false;
}

static void set_in_section(reader *in, const char *key, const char *value)
{
    char why[384];
    char prefix[80] = "";
    bool is_worker = in->section == SECTION_WORKER;
    if (is_worker)
        snprintf(prefix, sizeof(prefix), "worker %s: ", in->worker->name);
    if (is_repeated(in, is_worker ? bt_worker_settings : bt_master_settings, prefix, key))
        return;

    int error = is_worker ? bt_config_set_worker(in->config, in->worker, key, value, why, sizeof(why))
                          : bt_config_set_master(in->config, key, value, why, sizeof(why));
    if (error < 0) {
        const char *hint = strstr(value, " #") ? " (a comment behind a value begins with \" ;\")" : "";
        complain(in, in->line, "%s%s%s", prefix, why, hint);
    }
}

/* ini_handler. The section it names is cut at 49 bytes; ours is not. Always 1: go on to the next mistake. */
static int on_setting(void *arg, const char *section, const char *key, const char *value)
{
    (void) section;
    reader *in = arg;
    in->setting_line = 0;
    switch (in->section) {
    case SECTION_NONE:
        complain(in, in->line, "%s: outside a section: [baton] or [worker NAME] must come before", key);
        break;
    case SECTION_MASTER:
    case SECTION_WORKER:
        set_in_section(in, key, value);
        break;
    case SECTION_SKIPPED:
        break;
    }
    return 1;
}

int bt_config_read_stream(bt_config *config, FILE *stream, const char *file, char **errors)
{
    reader in = {.stream = stream, .file = file, .errors = errors, .config = config};
    int broken_line = ini_parse_stream(next_line, &in, on_setting, &in);
    check_last_setting(&in);
    free(in.text);
    free(config->text);
    config->text = bt_buf_append(&in.kept, "", 1) == 0 ? strdup(bt_buf_head(&in.kept)) : NULL;
    bt_buf_free(&in.kept);
    if (in.out_of_memory || broken_line == -2 || !config->text) {
        bt_add_line(errors, "%s: out of memory", file);
        return -ENOMEM;
    }
    return in.error_count;
}

/* Symlinks stay as they are: with current/baton.ini a new "current" is a new release. NULL when out of memory. */
static bt_config *new_config_for(const char *file)
{
    char *cwd = getcwd(NULL, 0);
    char *path = bt_path_join(cwd, file);
    free(cwd);
    if (!path)
        return NULL;
    char *slash = strrchr(path, '/');
    char *dir = slash && slash > path ? strndup(path, (size_t) (slash - path)) : strdup("/");
    bt_config *config = dir ? bt_config_new(dir) : NULL;
    free(dir);
    if (config)
        config->file = path;
    else
        free(path);
    return config;
}

/* `mistakes`: how many there were in the lines, or -ENOMEM. */
static bt_config *read_file(const char *file, char **errors, int *mistakes)
{
    *mistakes = 0;
    *errors = NULL;
    FILE *stream = fopen(file, "re");
    if (!stream) {
        bt_add_line(errors, "%s: %s", file, strerror(errno));
        return NULL;
    }
    bt_config *config = new_config_for(file);
    if (config)
        *mistakes = bt_config_read_stream(config, stream, file, errors);
    else
        bt_add_line(errors, "%s: out of memory", file);
    fclose(stream);
    return config;
}

bt_config *bt_config_read(const char *file, char **errors)
{
    int mistakes;
    bt_config *config = read_file(file, errors, &mistakes);
    if (config && mistakes != 0) {
        bt_config_free(config);
        return NULL;
    }
    return config;
}

bt_config *bt_config_parse(const char *text, const bt_config *like, char **errors)
{
    *errors = NULL;
    bt_config *config = bt_config_new(like->base_dir);
    if (!config)
        return NULL;
    FILE *stream = fmemopen((void *) (uintptr_t) text, strlen(text), "r"); /* "r": it is not written to */
    config->file = like->file ? strdup(like->file) : NULL;
    int mistakes = -ENOMEM;
    if (stream && (config->file || !like->file))
        mistakes = bt_config_read_stream(config, stream, config->file ? config->file : "configuration", errors);
    if (stream)
        fclose(stream);
    if (mistakes == 0)
        return config;
    bt_config_free(config);
    return NULL;
}

bt_config *bt_config_read_lenient(const char *file, char **errors)
{
    int mistakes;
    return read_file(file, errors, &mistakes);
}

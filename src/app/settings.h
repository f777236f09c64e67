/* app/settings.h: every setting once: name, type, default, range, words. The table feeds baton.ini,
 * start programs, `baton check`, `--help` and docs/settings.md. */
#ifndef BT_APP_SETTINGS_H
#define BT_APP_SETTINGS_H

#include <baton/types.h>
#include <proc/config.h>
#include <stdio.h>

typedef enum bt_setting_type {
    BT_SETTING_STRING,
    BT_SETTING_PATH,  /* made absolute against base_dir */
    BT_SETTING_PATHS, /* blank-separated */
    BT_SETTING_BOOL,  /* yes no on off true false 1 0 */
    BT_SETTING_INT,
    BT_SETTING_TIME, /* "10", "10s", "500ms", "2m", "1h"; stored as milliseconds */
    BT_SETTING_SIZE, /* "1024", "16k", "10m", "1g" */
    BT_SETTING_CHOICE,
    BT_SETTING_LISTEN, /* the text and, parsed, bt_worker_config.address */
} bt_setting_type;

typedef struct bt_setting {
    const char *name;
    bt_setting_type type;
    size_t offset;        /* in bt_master_config or bt_worker_config */
    const char *fallback; /* default, in the syntax of the file; NULL: not set */
    int64_t min;          /* INT, TIME (ms), SIZE (bytes) */
    int64_t max;
    const char *choices; /* CHOICE: "ready-first|stop-first", index is the enum's value; STRING: the words allowed */
    const char *doc;     /* one sentence, plain text */
    bool needs_restart;  /* a reload takes every other setting over */
} bt_setting;

extern const bt_setting bt_master_settings[]; /* ended by name NULL */
extern const bt_setting bt_worker_settings[];

/* The setting of that name, or NULL. */
const bt_setting *bt_setting_find(const bt_setting *table, const char *name);

/* What a value may be, in the file's syntax: "1 to 1024", "1ms to 24h", "ready-first, stop-first"; "" when anything. */
void bt_setting_range(const bt_setting *setting, char *out, size_t size);

/* The setting's value in the file's syntax, "not set" when there is none. `base`: the bt_master_config or
 * bt_worker_config. Returns `out`, or a string of `base`. */
#define BT_SETTING_TEXT 40
const char *bt_setting_text(const bt_setting *setting, const void *base, char out[BT_SETTING_TEXT]);

/* A config with every [baton] default applied and no worker. base_dir is copied. NULL when out of memory. */
bt_config *bt_config_new(const char *base_dir);
void bt_config_free(bt_config *config);

/* Adds a worker with defaults. Returns NULL when out of memory. */
bt_worker_config *bt_config_add_worker(bt_config *config, const char *name);

/* The worker of that name, or NULL. */
bt_worker_config *bt_config_find_worker(const bt_config *config, const char *name);

/* A worker's name becomes a directory's: letters, digits, '.', '_', '-', 1 to 63 of them, not "." or "..".
 * Returns 0, or -EINVAL with words in `why`. */
BATON_NODISCARD int bt_worker_name_check(const char *name, char *why, size_t size);

/* Sets one value. Returns 0, or -EINVAL with words in `why`: `count: "x" is not a number from 1 to 1024`,
 * `colour: unknown setting (did you mean "count"?)`. */
BATON_NODISCARD int bt_config_set_master(bt_config *config, const char *name, const char *value, char *why,
                                         size_t size);
BATON_NODISCARD int bt_config_set_worker(bt_config *config, bt_worker_config *worker, const char *name,
                                         const char *value, char *why, size_t size);

/* Reads an ini file (src/app/ini.c). Returns NULL after printing every error found to `errors`
 * as "FILE:LINE: worker web: count: ..." lines, one string, malloc'ed (*errors NULL when there is none). */
bt_config *bt_config_read(const char *file, char **errors);

/* The same for commands that only need to find a running master: what is right is kept, so that a service can be
 * stopped while its file is being edited. Returns NULL only when the file cannot be read. */
bt_config *bt_config_read_lenient(const char *file, char **errors);

/* The configuration that was read as `text` (bt_config.text) once before; `like` gives the file's name and the
 * directory. Asks nothing of the system, so it does not block. NULL when out of memory or, with *errors, for mistakes.
 */
bt_config *bt_config_parse(const char *text, const bt_config *like, char **errors);

/* Fills `config`, its text too, from a stream; `file` is its name in the errors, appended to *errors (at most 20).
 * Returns how many mistakes there were, or -ENOMEM. */
BATON_NODISCARD int bt_config_read_stream(bt_config *config, FILE *stream, const char *file, char **errors);

/* `path` as it stands if absolute, else behind `dir`, without "./" in front. malloc'ed, NULL when out of memory. */
char *bt_path_join(const char *dir, const char *path);

/* Appends each line of `lines` behind "WHERE: KIND"; frees `lines`, which may be NULL. */
void bt_add_lines_take(char **list, const char *where, const char *kind, char *lines);

/* Appends one formatted line to the malloc'ed string *list (NULL: empty). When out of memory the line is lost. */
void bt_add_line(char **list, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What only holds between settings: names unique, at least one worker, listen parses and its scheme is known
 * (bt_protocol_exists(), given as a function so that this file knows no protocol), module readable and given when
 * `need_module`, user and group exist (and we are root), group only with user, probe only for http. Appends "worker
 * web: ..." lines to *errors. Warnings (stop-first with count 1) go to *warnings. Returns 0 or -EINVAL. */
BATON_NODISCARD int bt_config_validate(const bt_config *config, bool need_module,
                                       bool (*protocol_exists)(const char *scheme), char **errors, char **warnings);

#endif

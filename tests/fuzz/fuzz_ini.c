/* fuzz_ini: any bytes as baton.ini. Must end without a crash or a leak; an error is one line; a config that was read
 * without a mistake holds values inside their ranges. */
#include <app/settings.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool knows_everything(const char *scheme)
{
    (void) scheme;
    return true;
}

static void check_ranges(const bt_worker_config *worker)
{
    char why[200];
    if (bt_worker_name_check(worker->name, why, sizeof(why)) < 0 || worker->count < 1 || worker->count > 1024 ||
        worker->max_head < 1024 || worker->max_headers > 1024 || worker->max_package < 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *errors = NULL;
    char *warnings = NULL;
    if (size == 0)
        return 0;
    FILE *stream = fmemopen((void *) (uintptr_t) data, size, "r");
    bt_config *config = bt_config_new("/srv");
    if (!stream || !config)
        abort();

    int mistakes = bt_config_read_stream(config, stream, "b.ini", &errors);
    if (mistakes < 0 || (mistakes > 0) != (errors != NULL))
        abort();
    for (size_t i = 0; i < config->worker_count; i++)
        check_ranges(config->workers[i]);
    /* getpwnam and stat of hostile names are harmless but slow: only whole files get so far */
    if (mistakes == 0 && bt_config_validate(config, false, knows_everything, &errors, &warnings) < 0 && !errors)
        abort();

    free(errors);
    free(warnings);
    fclose(stream);
    bt_config_free(config);
    return 0;
}

/* preloaded.so: a plain library that the start program loads in main, before any process is forked.
 * Put a new one in its place by rename (`mv`, `install`), never by writing over it: the running master has it mapped.
 */
__attribute__((visibility("default"))) const char *preloaded_text(void);

const char *preloaded_text(void)
{
    return "preloaded 1";
}

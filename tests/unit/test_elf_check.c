/* test_elf_check: a shared object that lacks bytes is refused before the loader can stumble over it.
 * The judge is the loader itself: what the check lets pass must not kill a process that loads it. */
#include <proc/elf_check.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char *image;
static size_t image_size;

/* A shell command in the test's directory. */
__attribute__((format(printf, 1, 2))) static void run(const char *format, ...)
{
    char command[512];
    int len = snprintf(command, sizeof(command), "cd %s && ", dir);
    va_list args;
    va_start(args, format);
    vsnprintf(command + len, sizeof(command) - (size_t) len, format, args);
    va_end(args);
    assert_int_equal(system(command), 0);
}

static void read_image(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    free(image);
    image_size = (size_t) status.st_size;
    image = malloc(image_size);
    assert_int_equal(read(fd, image, image_size), image_size);
    close(fd);
}

/* Data, zeroed memory, thread-local memory and a constructor: every kind of segment. */
static const char source[] = "#include <stdio.h>\n"
                             "int filled[3000] = {1}; int zeroed[5000]; _Thread_local int local = 3;\n"
                             "const char words[9000] = \"x\";\n"
                             "__attribute__((constructor)) static void start(void) { zeroed[4999] = filled[2999]; }\n"
                             "int f(void) { return printf(\"%d\", local); }\n";

static int build_image(void **state)
{
    (void) state;
    snprintf(dir, sizeof(dir), "/tmp/bt-elf-XXXXXX");
    assert_non_null(mkdtemp(dir));
    char path[128];
    snprintf(path, sizeof(path), "%s/a.c", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(source, file);
    fclose(file);
    run("cc -shared -fPIC -Wl,--build-id=0x%s -o a.so a.c", "0123456789abcdef");
    read_image("a.so");
    return 0;
}

static int remove_image(void **state)
{
    (void) state;
    free(image);
    image = NULL;
    run("rm -rf %s", dir);
    return 0;
}

/* An exact copy on the heap, so that a sanitizer sees a step past the end. */
static int check(const char *bytes, size_t size, char *why, size_t why_size)
{
    char *copy = malloc(size + (size == 0));
    memcpy(copy, bytes, size);
    int err = bt_elf_check(copy, size, why, why_size);
    free(copy);
    return err;
}

static void test_whole_file_passes(void **state)
{
    (void) state;
    char why[160] = "";
    char build_id[65];
    assert_int_equal(check(image, image_size, why, sizeof(why)), 0);
    assert_string_equal(why, "");
    assert_string_equal(bt_elf_build_id(image, image_size, build_id, sizeof(build_id)), "0123456789abcdef");
    assert_string_equal(bt_elf_build_id(image, image_size, build_id, 6), "0123");
}

static void test_every_truncation_of_a_file_with_section_headers_is_refused(void **state)
{
    (void) state;
    char why[160];
    for (size_t size = 0; size < image_size; size += 7) {
        why[0] = '\0';
        assert_int_equal(check(image, size, why, sizeof(why)), -ENOEXEC);
        assert_true(why[0] != '\0');
    }
    assert_int_equal(check(image, image_size - 1, why, sizeof(why)), -ENOEXEC);
    char expected[160];
    snprintf(expected, sizeof(expected), "truncated: the section headers end at byte %zu, the file has %zu", image_size,
             image_size - 1);
    assert_string_equal(why, expected);
}

/* True when a process that loads the first `size` bytes is killed by a signal. */
static bool loader_dies(size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/cut.so", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    assert_int_equal(write(fd, image, size), size);
    close(fd);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGBUS, SIG_DFL); /* a sanitizer would turn it into an exit */
        signal(SIGSEGV, SIG_DFL);
        (void) dlopen(path, RTLD_NOW | RTLD_LOCAL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

/* Without section headers only the segments tell: every size that passes must load without a signal. */
static void test_what_passes_without_section_headers_does_not_kill_the_loader(void **state)
{
    (void) state;
    ElfW(Ehdr) header;
    memcpy(&header, image, sizeof(header));
    header.e_shoff = 0;
    header.e_shnum = 0;
    memcpy(image, &header, sizeof(header));
    size_t killers = 0;
    size_t passes = 0;
    for (size_t size = 1000; size <= image_size; size += 509) {
        char why[160];
        bool passed = check(image, size, why, sizeof(why)) == 0;
        bool killed = loader_dies(size);
        assert_false(passed && killed);
        passes += passed;
        killers += killed;
    }
    assert_true(passes > 0);
    assert_true(killers > 0); /* or this test proves nothing */
    read_image("a.so");
}

static void test_segment_past_the_end_is_named(void **state)
{
    (void) state;
    char why[160];
    assert_int_equal(check(image, 4096, why, sizeof(why)), -ENOEXEC);
    assert_non_null(strstr(why, "truncated: segment "));
    assert_non_null(strstr(why, ", the file has 4096"));
}

static void assert_refused(const char *name, const char *expected)
{
    char why[160] = "";
    read_image(name);
    assert_int_equal(check(image, image_size, why, sizeof(why)), -ENOEXEC);
    assert_string_equal(why, expected);
    read_image("a.so");
}

static void test_programs_and_object_files_are_refused(void **state)
{
    (void) state;
    run("echo 'int main(void) { return 0; }' > m.c && cc -pie -fPIE -o pie m.c && cc -no-pie -o static m.c"
        " && cc -c -o m.o m.c");
    assert_refused("pie", "a program, not a shared object: link it with -shared");
    assert_refused("static", "a program, not a shared object: link it with -shared");
    assert_refused("m.o", "an object file, not a shared object: link it with -shared");
    assert_refused("m.c", "not an ELF file");
}

static void assert_patched_byte_refused(size_t offset, char value, const char *expected)
{
    char why[160] = "";
    char old = image[offset];
    image[offset] = value;
    assert_int_equal(check(image, image_size, why, sizeof(why)), -ENOEXEC);
    assert_string_equal(why, expected);
    image[offset] = old;
}

static void test_files_for_other_machines_are_refused(void **state)
{
    (void) state;
    bool is_64 = sizeof(void *) == 8;
    assert_patched_byte_refused(EI_CLASS, is_64 ? ELFCLASS32 : ELFCLASS64,
                                is_64 ? "a 32-bit ELF file, this program is not" : "not of this program's ELF class");
    assert_patched_byte_refused(EI_DATA, 3, "of another byte order");
    assert_patched_byte_refused(EI_VERSION, 9, "of an unknown ELF version");
    assert_patched_byte_refused(offsetof(ElfW(Ehdr), e_machine), 0, "built for another machine");
    assert_patched_byte_refused(offsetof(ElfW(Ehdr), e_type), ET_CORE, "not a shared object");
    assert_patched_byte_refused(offsetof(ElfW(Ehdr), e_phentsize), 1, "damaged: no usable program headers");
    assert_patched_byte_refused(offsetof(ElfW(Ehdr), e_phnum), 0, "damaged: no usable program headers");
}

static void test_offsets_that_wrap_are_refused(void **state)
{
    (void) state;
    ElfW(Ehdr) header;
    memcpy(&header, image, sizeof(header));
    ElfW(Ehdr) bad = header;
    char why[160];
    bad.e_phoff = (ElfW(Off)) - 8;
    memcpy(image, &bad, sizeof(bad));
    assert_int_equal(check(image, image_size, why, sizeof(why)), -ENOEXEC);
    bad = header;
    bad.e_shoff = (ElfW(Off)) - 8;
    memcpy(image, &bad, sizeof(bad));
    assert_int_equal(check(image, image_size, why, sizeof(why)), -ENOEXEC);
    memcpy(image, &header, sizeof(header));

    ElfW(Phdr) segment;
    memcpy(&segment, image + header.e_phoff, sizeof(segment));
    segment.p_filesz = (ElfW(Off)) - 1;
    segment.p_offset = 4096;
    memcpy(image + header.e_phoff, &segment, sizeof(segment));
    assert_int_equal(check(image, image_size, why, sizeof(why)), -ENOEXEC);
    assert_non_null(strstr(why, "segment 0 ends"));
    read_image("a.so");
}

/* The fuzzer's short form: every byte of the headers changed in turn must not step outside. */
static void test_damaged_headers_are_safe_to_read(void **state)
{
    (void) state;
    static const unsigned char values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    for (size_t at = 0; at < 1024; at++) {
        char old = image[at];
        for (size_t i = 0; i < sizeof(values); i++) {
            char why[160];
            char build_id[65];
            image[at] = (char) values[i];
            if (bt_elf_check(image, image_size, why, sizeof(why)) == 0)
                bt_elf_build_id(image, image_size, build_id, sizeof(build_id));
        }
        image[at] = old;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_file_passes),
        cmocka_unit_test(test_every_truncation_of_a_file_with_section_headers_is_refused),
        cmocka_unit_test(test_what_passes_without_section_headers_does_not_kill_the_loader),
        cmocka_unit_test(test_segment_past_the_end_is_named),
        cmocka_unit_test(test_programs_and_object_files_are_refused),
        cmocka_unit_test(test_files_for_other_machines_are_refused),
        cmocka_unit_test(test_offsets_that_wrap_are_refused),
        cmocka_unit_test(test_damaged_headers_are_safe_to_read),
    };
    return cmocka_run_group_tests(tests, build_image, remove_image);
}

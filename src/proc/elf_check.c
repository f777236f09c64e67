/* proc/elf_check.c: checks the ELF headers of a shared object against the size of its file.
 * Treats the bytes as hostile: no offset is followed before it was compared with the size. */
#include <proc/elf_check.h>

#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

typedef ElfW(Ehdr) elf_header;
typedef ElfW(Phdr) elf_segment;

/* Given by the linker: our own header says what class, byte order and machine the loader takes. */
extern const elf_header __ehdr_start /* NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
    __attribute__((visibility("hidden")));

static bool is_inside(uint64_t offset, uint64_t len, size_t size)
{
    return offset <= size && len <= size - offset;
}

static const elf_segment *read_segment(const void *image, const elf_header *header, size_t index, elf_segment *out)
{
    const char *table = (const char *) image + header->e_phoff;
    memcpy(out, table + index * sizeof(*out), sizeof(*out)); /* e_phoff need not be aligned */
    return out;
}

bool bt_elf_has_magic(const void *image, size_t size)
{
    return size >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0;
}

static const char *problem_of_header(const elf_header *header)
{
    const elf_header *own = &__ehdr_start;
    if (header->e_ident[EI_CLASS] != own->e_ident[EI_CLASS])
        return header->e_ident[EI_CLASS] == ELFCLASS32 ? "a 32-bit ELF file, this program is not"
                                                       : "not of this program's ELF class";
    if (header->e_ident[EI_DATA] != own->e_ident[EI_DATA])
        return "of another byte order";
    if (header->e_machine != own->e_machine)
        return "built for another machine";
    if (header->e_ident[EI_VERSION] != EV_CURRENT || header->e_version != EV_CURRENT)
        return "of an unknown ELF version";
    if (header->e_type == ET_EXEC)
        return "a program, not a shared object: link it with -shared";
    if (header->e_type == ET_REL)
        return "an object file, not a shared object: link it with -shared";
    if (header->e_type != ET_DYN)
        return "not a shared object";
    if (header->e_phnum == 0 || header->e_phentsize != sizeof(elf_segment))
        return "damaged: no usable program headers";
    return NULL;
}

static int truncated(const char *what, uint64_t offset, uint64_t len, size_t size, char *why, size_t why_size)
{
    uint64_t end = len > UINT64_MAX - offset ? UINT64_MAX : offset + len;
    snprintf(why, why_size, "truncated: %s at byte %" PRIu64 ", the file has %zu", what, end, size);
    return -ENOEXEC;
}

/* A position-independent program is ET_DYN as well; only this flag tells it from a shared object. */
static bool is_program(const void *image, const elf_segment *dynamic)
{
    for (uint64_t at = 0; at + sizeof(ElfW(Dyn)) <= dynamic->p_filesz; at += sizeof(ElfW(Dyn))) {
        ElfW(Dyn) entry;
        memcpy(&entry, (const char *) image + dynamic->p_offset + at, sizeof(entry));
        if (entry.d_tag == DT_NULL)
            return false;
        if (entry.d_tag == DT_FLAGS_1)
            return (entry.d_un.d_val & DF_1_PIE) != 0;
    }
    return false;
}

static int check_segments(const void *image, const elf_header *header, size_t size, char *why, size_t why_size)
{
    bool has_load = false;
    bool has_dynamic = false;
    for (size_t i = 0; i < header->e_phnum; i++) {
        elf_segment segment;
        read_segment(image, header, i, &segment);
        /* Also an empty one: its page is zeroed in place when its memory begins inside it. */
        if (!is_inside(segment.p_offset, segment.p_filesz, size)) {
            char what[40];
            snprintf(what, sizeof(what), "segment %zu ends", i);
            return truncated(what, segment.p_offset, segment.p_filesz, size, why, why_size);
        }
        if (segment.p_type == PT_DYNAMIC && is_program(image, &segment)) {
            snprintf(why, why_size, "a program, not a shared object: link it with -shared");
            return -ENOEXEC;
        }
        has_load = has_load || segment.p_type == PT_LOAD;
        has_dynamic = has_dynamic || segment.p_type == PT_DYNAMIC;
    }
    if (has_load && has_dynamic)
        return 0;
    snprintf(why, why_size, "damaged: nothing to load in it");
    return -ENOEXEC;
}

int bt_elf_check(const void *image, size_t size, char *why, size_t why_size)
{
    if (!bt_elf_has_magic(image, size)) {
        snprintf(why, why_size, size == 0 ? "empty" : "not an ELF file");
        return -ENOEXEC;
    }
    if (size < sizeof(elf_header))
        return truncated("the ELF header ends", 0, sizeof(elf_header), size, why, why_size);
    elf_header header;
    memcpy(&header, image, sizeof(header));
    const char *problem = problem_of_header(&header);
    if (problem) {
        snprintf(why, why_size, "%s", problem);
        return -ENOEXEC;
    }

    uint64_t table_len = (uint64_t) header.e_phnum * sizeof(elf_segment);
    if (!is_inside(header.e_phoff, table_len, size))
        return truncated("the program headers end", header.e_phoff, table_len, size, why, why_size);
    int err = check_segments(image, &header, size, why, why_size);
    if (err)
        return err;

    /* The loader does not read the section headers, but linkers write them last: they are the part that a file
     * still being written lacks. */
    table_len = (uint64_t) header.e_shnum * header.e_shentsize;
    if (header.e_shoff != 0 && !is_inside(header.e_shoff, table_len, size))
        return truncated("the section headers end", header.e_shoff, table_len, size, why, why_size);
    return 0;
}

static void write_hex(char *out, size_t out_size, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < len && at + 2 < out_size; i++) {
        out[at++] = digits[bytes[i] >> 4];
        out[at++] = digits[bytes[i] & 15];
    }
    out[at] = '\0';
}

/* Looks through one PT_NOTE. Name and description are padded to the segment's alignment, 4 or 8. */
static bool find_build_id(const char *notes, uint64_t len, uint64_t align, char *out, size_t out_size)
{
    const uint64_t pad = align == 8 ? 7 : 3;
    uint64_t at = 0;
    while (len - at >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t desc = (name + note.n_namesz + pad) & ~pad;
        uint64_t next = (desc + note.n_descsz + pad) & ~pad;
        if (desc + note.n_descsz > len)
            return false;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof(ELF_NOTE_GNU) &&
            memcmp(notes + name, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0) {
            write_hex(out, out_size, (const unsigned char *) notes + desc, note.n_descsz);
            return true;
        }
        if (next > len)
            return false;
        at = next;
    }
    return false;
}

const char *bt_elf_build_id(const void *image, size_t size, char *out, size_t out_size)
{
    snprintf(out, out_size, "%s", "");
    elf_header header;
    memcpy(&header, image, sizeof(header));
    for (size_t i = 0; i < header.e_phnum; i++) {
        elf_segment segment;
        read_segment(image, &header, i, &segment);
        if (segment.p_type != PT_NOTE || !is_inside(segment.p_offset, segment.p_filesz, size))
            continue;
        const char *notes = (const char *) image + segment.p_offset;
        if (find_build_id(notes, segment.p_filesz, segment.p_align, out, out_size))
            break;
    }
    return out;
}

/* A QEMU plugin that counts a guest's A64 instructions by class, for benchmarks/arm.
 *
 * The guest marks a place with getppid(2), which nothing else on the way calls. At every mark one line with the
 * totals so far is appended to the file named by the plugin's argument `out=FILE`; two lines subtracted are what
 * ran between two marks. Counts are added per translated block, so they are exact for a guest with one busy thread.
 *
 * With `caches=KIB:WAYS/KIB:WAYS...` every load and store also goes through a model of data caches of these sizes,
 * from the first level on: lines of 64 bytes, the least recently used is replaced, a miss fills every level. The
 * lines that each level misses are counted as miss_l1, miss_l2 and so on. There is no prefetcher, no store buffer and
 * no instruction cache in it. This takes two to three times as long.
 *
 * Encodings: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qemu-plugin.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { SYS_GETPPID = 173 }; /* asm-generic/unistd.h, the table of aarch64 */

/* The first class whose (instruction & mask) == value takes an instruction; the last takes what is left. */
static const struct {
    const char *name;
    uint32_t mask, value;
} ENCODINGS[] = {
    {"dot", 0x9f20fc00, 0x0e009400},   /* sdot, udot, vectors */
    {"dot", 0x9f00f400, 0x0f00e000},   /* sdot, udot, by element */
    {"fmla", 0xbf20fc00, 0x0e20cc00},  /* fmla, fmls, vectors */
    {"fmla", 0xbf80b400, 0x0f801000},  /* fmla, fmls, by element */
    {"fmla", 0xff000000, 0x1f000000},  /* fmadd and its kin, scalar */
    {"mull", 0x9f20fc00, 0x0e20c000},  /* smull, umull, vectors */
    {"mull", 0x9f00f400, 0x0f00a000},  /* smull, umull, by element */
    {"mlal", 0x9f20fc00, 0x0e208000},  /* smlal, umlal, vectors */
    {"mlal", 0x9f00f400, 0x0f002000},  /* smlal, umlal, by element */
    {"adalp", 0x9f3ffc00, 0x0e206800}, /* sadalp, uadalp */
    {"memory", 0x0a000000, 0x08000000},
    {"branch", 0x1c000000, 0x14000000},
    {"simd", 0x0e000000, 0x0e000000}, /* all other vector and floating-point work */
    {"integer", 0, 0},
};
enum { ENCODING_COUNT = sizeof ENCODINGS / sizeof ENCODINGS[0] };

enum { LINE_SHIFT = 6, LEVELS_MOST = 3 };

/* One level of data cache: `sets` (a power of two) of `ways` lines each, the most recently used first. */
struct cache {
    uint64_t *lines; /* line number + 1; 0 is empty */
    uint64_t sets, ways, misses;
};

static struct cache caches[LEVELS_MOST];
static unsigned levels;
static uint64_t totals[ENCODING_COUNT];
static int out = -1;

/* Whether `line` is in the cache; in any case it is the first of its set afterwards. */
static int touch(struct cache *cache, uint64_t line)
{
    uint64_t *set = cache->lines + (line & (cache->sets - 1)) * cache->ways;
    uint64_t k = 0;
    while (k < cache->ways - 1 && set[k] != line + 1) {
        k++;
    }
    int hit = set[k] == line + 1;
    memmove(set + 1, set, k * sizeof *set);
    set[0] = line + 1;
    return hit;
}

static void accessed(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *unused)
{
    uint64_t last = (address + (1u << qemu_plugin_mem_size_shift(info)) - 1) >> LINE_SHIFT;
    for (uint64_t line = address >> LINE_SHIFT; line <= last; line++) {
        for (unsigned k = 0; k < levels && !touch(&caches[k], line); k++) {
            caches[k].misses++;
        }
    }
}

/* Set the caches up from "KIB:WAYS/KIB:WAYS...". Returns 0 where that cannot be read. */
static int set_up_caches(const char *text)
{
    unsigned kib, ways;
    int used;
    while (levels < LEVELS_MOST && sscanf(text, "%u:%u%n", &kib, &ways, &used) == 2) {
        uint64_t sets = ways > 0 ? ((uint64_t)kib << 10 >> LINE_SHIFT) / ways : 0;
        uint64_t *lines = sets > 0 && (sets & (sets - 1)) == 0 ? calloc(sets * ways, sizeof *lines) : NULL;
        if (lines == NULL) {
            return 0;
        }
        caches[levels++] = (struct cache){.lines = lines, .sets = sets, .ways = ways};
        text += used;
        if (*text == '\0') {
            return 1;
        }
        text++;
    }
    return 0;
}

static unsigned encoding_of(const struct qemu_plugin_insn *insn)
{
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word); /* A64 is little endian on every Linux */
    unsigned k = 0;
    while ((word & ENCODINGS[k].mask) != ENCODINGS[k].value) {
        k++;
    }
    return k;
}

static void block_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t here[ENCODING_COUNT] = {0};
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        here[encoding_of(insn)]++;
        if (levels > 0) {
            qemu_plugin_register_vcpu_mem_cb(insn, accessed, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
        }
    }
    for (unsigned k = 0; k < ENCODING_COUNT; k++) {
        if (here[k] > 0) {
            qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &totals[k], here[k]);
        }
    }
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number != SYS_GETPPID) {
        return;
    }
    char line[1024] = "{";
    for (unsigned k = 0; k < ENCODING_COUNT;) {
        const char *name = ENCODINGS[k].name;
        uint64_t sum = 0;
        for (; k < ENCODING_COUNT && strcmp(ENCODINGS[k].name, name) == 0; k++) {
            sum += totals[k];
        }
        size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, "%s\"%s\": %" PRIu64, used > 1 ? ", " : "", name, sum);
    }
    for (unsigned k = 0; k < levels; k++) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, ", \"miss_l%u\": %" PRIu64, k + 1, caches[k].misses);
    }
    strcat(line, "}\n");
    if (write(out, line, strlen(line)) < 0) {
        perror("count.so");
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    int readable = 1;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = open(argv[i] + 4, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
        } else {
            readable = strncmp(argv[i], "caches=", 7) == 0 && set_up_caches(argv[i] + 7);
        }
    }
    if (out < 0 || !readable) {
        fprintf(stderr, "count.so: give a file that can be written, as out=FILE, and caches as KIB:WAYS/KIB:WAYS\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}

/* A QEMU plugin that counts a guest's A64 instructions by class, for benchmarks/arm.
 *
 * The guest marks a place with getppid(2), which nothing else on the way calls. At every mark one line with the
 * totals so far is appended to the file named by the plugin's argument `out=FILE`; two lines subtracted are what
 * ran between two marks. Counts are added per translated block, so they are exact for a guest with one busy thread.
 *
 * Encodings: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
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

static uint64_t totals[ENCODING_COUNT];
static int out = -1;

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
        here[encoding_of(qemu_plugin_tb_get_insn(tb, i))]++;
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
    strcat(line, "}\n");
    if (write(out, line, strlen(line)) < 0) {
        perror("count.so");
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    if (argc == 1 && strncmp(argv[0], "out=", 4) == 0) {
        out = open(argv[0] + 4, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    }
    if (out < 0) {
        fprintf(stderr, "count.so: give a file that can be written, as out=FILE\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}

/* A QEMU (TCG) plugin that counts the instructions of an emulated program and says the count at each sched_yield it calls.
 * The few declarations needed of qemu-plugin.h (API version 1, QEMU 4.2 and later) stand here, so that the header isn't.
 */
#include <stdint.h>
#include <stdio.h>

typedef uint64_t id_t;
int qemu_plugin_version = 1;

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(id_t, void (*)(id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_syscall_cb(id_t, void (*)(id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                         uint64_t, uint64_t, uint64_t, uint64_t));

static uint64_t count;

static void translated(id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0 /* add */, &count, qemu_plugin_tb_n_insns(block));
}

static void called(id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == 124) /* sched_yield on aarch64 */
        fprintf(stderr, "count %llu\n", (unsigned long long)count);
}

__attribute__((visibility("default"))) int qemu_plugin_install(id_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}

/* A plugin in C that has one part only, a codec: every command is a hint, except SYNC (1) and the unknown. */
#include <viommu_plugin.h>

#ifndef ABI
#define ABI ViommuABI_MAJOR
#endif
#ifndef SIZE
#define SIZE sizeof(struct ViommuPluginEntry)
#endif
#ifndef NAME
#define NAME {"c-codec", 7}
#endif
#ifndef DESTROY
#define DESTROY destroy
#endif

static int64_t create(const struct ViommuRegister *registers, size_t count, void **instance, struct ViommuMessage *why)
{
    static int one;
#ifdef CRASH
    abort();
#endif
    (void)registers;
    if (count > 0) {
        why->bytes[0] = 'n';
        why->bytes[1] = 'o';
        why->len = 2;
        return -ViommuRefusal_EINVAL;
    }
    *instance = &one;
    return 0;
}

static inline int64_t destroy(void *instance)
{
    (void)instance;
    return 0;
}

static int64_t rewrite(void *instance, const uint64_t *guest, size_t guest_words, ViommuClasses before,
                       const struct ViommuHostIdTable *ids, uint64_t *out, size_t out_words, struct ViommuRewritten *done)
{
    (void)instance, (void)before, (void)ids, (void)out, (void)out_words;
    for (done->stop = ViommuStop_END; done->taken < guest_words; done->taken++, done->hints++) {
        if (guest[done->taken] == 1) {
            done->stop = ViommuStop_SYNC;
            break;
        }
    }
    return 0;
}

static int64_t configuration(void *instance, const uint64_t *command, size_t words, struct ViommuConfiguration *scope)
{
    (void)instance, (void)command, (void)words;
    scope->first = 2;
    scope->last = 1;
    return 0;
}

static int64_t entry_key(void *instance, const uint64_t *entry, size_t words, struct ViommuEntryKey *key)
{
    (void)instance, (void)words;
    key->kind = (ViommuKeyKind)entry[0];
    return -1000000;
}

static int64_t opcode(void *instance, const uint64_t *command, size_t words)
{
    (void)instance, (void)words;
    return (int64_t)command[0];
}

static int64_t opcode_name(void *instance, uint8_t op, struct ViommuText *name)
{
    (void)instance;
    if (op == 1)
        *name = (struct ViommuText){"SYNC", 4};
    if (op == 2)
        *name = (struct ViommuText){"\xff\xfe", 2};
    return 0;
}

static int64_t describe(void *instance, const uint64_t *command, size_t words, struct ViommuMessage *text)
{
    (void)instance, (void)command, (void)words, (void)text;
    return -ViommuRefusal_EOPNOTSUPP;
}

const struct ViommuPluginEntry viommu_plugin_entry = {
    .size = SIZE,
    .abi_major = ABI,
    .abi_minor = 7,
    .vendor = 0x8001,
    .name = NAME,
    .version = {"1", 1},
    .stream_name = {"id", 2},
    .command_words = 1,
    .entry_words = 1,
    .event_words = 1,
    .frame_bytes = 4096,
    .codec_create = create,
    .codec_destroy = DESTROY,
    .codec_rewrite = rewrite,
    .codec_configuration = configuration,
    .codec_entry_key = entry_key,
    .codec_opcode = opcode,
    .codec_opcode_name = opcode_name,
    .codec_describe = describe,
};

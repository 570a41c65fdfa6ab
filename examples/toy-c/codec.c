/* Check and rewrite of a guest's commands, and what its table entries ask for. */
#include "toy.h"

#include <stdlib.h>

int64_t codec_create(const struct ViommuRegister *registers, size_t count, void **instance, struct ViommuMessage *why)
{
    struct shown *shown = malloc(sizeof *shown);
    int64_t refused;

    if (!shown)
        return refuse(why, ViommuRefusal_ENOMEM, "no memory for a codec");
    refused = shown_read(registers, count, DEVICE_CACHE, shown, why);
    if (refused) {
        free(shown);
        return refused;
    }
    *instance = shown;
    return 0;
}

int64_t codec_destroy(void *instance)
{
    free(instance);
    return 0;
}

/* Why the rewrite cannot take this command, or END if it can. */
static ViommuStop stop_at(const uint64_t command[COMMAND_WORDS], const struct shown *shown, ViommuGuestFault *fault)
{
    uint64_t allowed[COMMAND_WORDS];

    if (!command_allowed(command, shown->features, allowed)) {
        *fault = ViommuGuestFault_ILLEGAL_OPCODE;
        return ViommuStop_FAULT;
    }
    if (command[0] & ~allowed[0] || command[1] & ~allowed[1]) {
        *fault = ViommuGuestFault_RESERVED_BITS;
        return ViommuStop_FAULT;
    }
    switch (command[0] & 0xff) {
    case CHANGED:
        return ViommuStop_CONFIGURATION;
    case WAIT:
        return ViommuStop_SYNC;
    default:
        return ViommuStop_END;
    }
}

int64_t codec_rewrite(void *instance, const uint64_t *guest, size_t guest_words, ViommuClasses before,
                      const struct ViommuHostIdTable *ids, uint64_t *out, size_t out_words,
                      struct ViommuRewritten *done)
{
    *done = (struct ViommuRewritten){0};
    for (size_t at = 0; at + COMMAND_WORDS <= guest_words; at += COMMAND_WORDS) {
        /* Each word is read once: what is checked is what goes out. */
        const uint64_t command[COMMAND_WORDS] = {guest[at], guest[at + 1]};
        const int device = (command[0] & 0xff) == INVALIDATE_DEVICE;
        uint64_t id = ids->tag, *place;

        done->stop = stop_at(command, instance, &done->fault);
        if (done->stop != ViommuStop_END)
            return 0;
        if (device) {
            uint64_t stream = command[0] >> STREAM_SHIFT;

            id = stream < ids->stream_count ? ids->streams[stream] : ViommuNO_STREAM;
            if (id == ViommuNO_STREAM) {
                done->local_stream++;
                done->taken++;
                continue;
            }
            if ((before | done->classes) & ViommuClasses_TLB) {
                done->stop = ViommuStop_ORDER;
                return 0;
            }
        }
        if ((size_t)(done->written + 1) * COMMAND_WORDS > out_words) {
            done->stop = ViommuStop_ROOM;
            return 0;
        }
        place = out + (size_t)done->written * COMMAND_WORDS;
        if (device) {
            place[0] = (command[0] & 0xffffffff) | id << STREAM_SHIFT;
            done->classes |= ViommuClasses_ATC;
            done->atc++;
        } else {
            place[0] = (command[0] & ~TAG_BITS) | id << TAG_SHIFT;
            done->classes |= ViommuClasses_TLB;
            done->tlb++;
        }
        place[1] = command[1];
        done->written++;
        done->taken++;
    }
    return 0;
}

int64_t codec_configuration(void *instance, const uint64_t *command, size_t words, struct ViommuConfiguration *scope)
{
    (void)instance, (void)words;
    scope->first = scope->last = (uint32_t)(command[0] >> STREAM_SHIFT);
    return 0;
}

int64_t codec_entry_key(void *instance, const uint64_t *entry, size_t words, struct ViommuEntryKey *key)
{
    const struct shown *shown = instance;

    (void)words;
    *key = (struct ViommuEntryKey){.kind = ViommuKeyKind_ABORT, .domain = ViommuNO_DOMAIN};
    if (!(entry[0] & ENTRY_VALID))
        return 0;
    if (!entry_is_legal(entry, shown->features)) {
        key->event = BAD_ENTRY;
    } else if (entry[0] & ENTRY_TABLE) {
        key->kind = ViommuKeyKind_TRANSLATE;
        key->words[0] = entry[0];
        key->words[1] = entry[1];
    } else {
        key->kind = ViommuKeyKind_BYPASS;
    }
    return 0;
}

int64_t codec_opcode(void *instance, const uint64_t *command, size_t words)
{
    (void)instance, (void)words;
    return (int64_t)(command[0] & 0xff);
}

int64_t codec_opcode_name(void *instance, uint8_t opcode, struct ViommuText *name)
{
    const char *text = command_name(opcode);

    (void)instance;
    *name = (struct ViommuText){text, 0};
    while (text && text[name->len])
        name->len++;
    return 0;
}

int64_t codec_describe(void *instance, const uint64_t *command, size_t words, struct ViommuMessage *text)
{
    const char *name = command_name(command[0] & 0xff);
    unsigned long long stream = command[0] >> STREAM_SHIFT, address = command[1];

    (void)instance, (void)words;
    switch (command[0] & 0xff) {
    case INVALIDATE_DEVICE:
        if (command[0] & COMMAND_ALL)
            say(text, "%s STREAM=0x%llx ALL", name, stream);
        else
            say(text, "%s STREAM=0x%llx address=0x%llx", name, stream, address);
        break;
    case CHANGED:
        say(text, "%s STREAM=0x%llx", name, stream);
        break;
    case INVALIDATE_PAGE:
    case WAIT:
        say(text, "%s address=0x%llx", name, address);
        break;
    case INVALIDATE_TAG:
        say(text, "%s", name);
        break;
    default:
        say(text, "illegal 0x%llx 0x%llx", (unsigned long long)command[0], address);
    }
    return 0;
}

/* The registers that a guest sees. */
#include "toy.h"

#include <stdlib.h>
#include <string.h>

struct frontend {
    struct frame frame;
};

/* What is lent for an answer holds whatever was there: each slot begins with this. */
static const struct ViommuEffects nothing;

int64_t frontend_create(const struct ViommuRegister *registers, size_t count, void **instance,
                        struct ViommuMessage *why)
{
    struct frontend *frontend = malloc(sizeof *frontend);
    struct shown shown;
    int64_t refused;

    if (!frontend)
        return refuse(why, ViommuRefusal_ENOMEM, "no memory for a frontend");
    refused = shown_read(registers, count, DEVICE_CACHE, &shown, why);
    if (refused) {
        free(frontend);
        return refused;
    }
    frame_reset(&frontend->frame, shown.features);
    *instance = frontend;
    return 0;
}

int64_t frontend_destroy(void *instance)
{
    free(instance);
    return 0;
}

int64_t frontend_read(void *instance, uint64_t offset, uint32_t size, uint64_t *value)
{
    const struct frontend *frontend = instance;

    *value = frame_read(&frontend->frame, offset, size);
    return 0;
}

int64_t frontend_write(void *instance, uint64_t offset, uint32_t size, uint64_t value, struct ViommuEffects *effects)
{
    struct frontend *frontend = instance;

    *effects = nothing;
    if (!frame_write(&frontend->frame, offset, size, value))
        return 0;
    switch (offset) {
    case CONTROL:
        effects->actions = ViommuActions_KICK | ViommuActions_RECONFIGURE;
        break;
    case TABLE:
        effects->actions = ViommuActions_RECONFIGURE;
        break;
    case TAIL:
    case RESUME:
        effects->actions = ViommuActions_KICK;
        break;
    }
    return 0;
}

int64_t frontend_queue(void *instance, struct ViommuGuestQueue *queue)
{
    const struct frontend *frontend = instance;
    const struct frame *frame = &frontend->frame;

    queue->base = frame_get(frame, QUEUE);
    queue->capacity = INDEX + 1;
    queue->head = (uint32_t)frame_get(frame, HEAD) & INDEX;
    queue->pending = frame_pending(frame);
    queue->command_words = COMMAND_WORDS;
    queue->fault = ViommuGuestFault_NONE;
    if (frame_error(frame))
        queue->state = ViommuQueueState_STOPPED;
    else if (frame_get(frame, CONTROL) & CONTROL_QUEUE)
        queue->state = ViommuQueueState_RUNNING;
    else
        queue->state = ViommuQueueState_DISABLED;
    return 0;
}

int64_t frontend_advance(void *instance, uint32_t commands)
{
    struct frontend *frontend = instance;
    uint32_t pending = frame_pending(&frontend->frame);

    frame_advance(&frontend->frame, commands < pending ? commands : pending);
    return 0;
}

int64_t frontend_fault(void *instance, ViommuGuestFault fault, struct ViommuEffects *effects)
{
    struct frontend *frontend = instance;
    uint32_t error = ERROR_ILLEGAL;

    *effects = nothing;
    switch (fault) {
    case ViommuGuestFault_EVENT_ABORT:
        frontend->frame.value[EVENT_TAIL / 8] |= LOST;
        return 0;
    case ViommuGuestFault_FETCH_ABORT:
        error = ERROR_FETCH;
        break;
    case ViommuGuestFault_ATC_TIMEOUT:
        error = ERROR_TIMEOUT;
        break;
    case ViommuGuestFault_HOST_ERROR:
        error = ERROR_HOST;
        break;
    }
    frame_stop(&frontend->frame, error);
    effects->lines = 1 << LINE_ERROR;
    return 0;
}

int64_t frontend_sync_done(void *instance, const uint64_t *command, size_t words, struct ViommuEffects *effects)
{
    *effects = nothing;
    if (words >= COMMAND_WORDS && command[0] & COMMAND_STORE) {
        effects->stores[0].gpa = command[1];
        effects->stores[0].len = 8;
        store_word(effects->stores[0].bytes, 1);
        effects->store_count = 1;
    }
    return frontend_advance(instance, 1);
}

int64_t frontend_event(void *instance, uint32_t virt_id, const uint64_t *record, size_t words,
                       struct ViommuEffects *effects)
{
    struct frontend *frontend = instance;
    uint64_t place;

    *effects = nothing;
    if (words < EVENT_WORDS)
        return -ViommuRefusal_EINVAL;
    place = frame_event_place(&frontend->frame);
    if (place) {
        effects->stores[0].gpa = place;
        effects->stores[0].len = EVENT_BYTES;
        store_word(effects->stores[0].bytes, (record[0] & ~UINT64_C(0xffffffff)) | virt_id);
        store_word(effects->stores[0].bytes + 8, record[1]);
        effects->store_count = 1;
        effects->lines = 1 << LINE_EVENT;
    }
    return 0;
}

int64_t frontend_event_lost(void *instance, struct ViommuEffects *effects)
{
    struct frontend *frontend = instance;

    *effects = nothing;
    frontend->frame.value[EVENT_TAIL / 8] |= LOST;
    return 0;
}

int64_t frontend_mode(void *instance, ViommuMode *mode)
{
    const struct frontend *frontend = instance;
    int on = frame_get(&frontend->frame, CONTROL) & CONTROL_TRANSLATE;

    *mode = on ? ViommuMode_TRANSLATE : ViommuMode_BYPASS;
    return 0;
}

int64_t frontend_entry(void *instance, const struct ViommuGuestMemoryCalls *memory, uint32_t virt_id, uint64_t *entry,
                       size_t words, ViommuLookup *lookup)
{
    const struct frontend *frontend = instance;
    uint8_t bytes[ENTRY_BYTES];

    if (virt_id >= STREAMS || words < ENTRY_WORDS) {
        *lookup = ViommuLookup_NO_ENTRY;
        return 0;
    }
    if (memory->read(memory->ctx, frame_get(&frontend->frame, TABLE) + (uint64_t)virt_id * ENTRY_BYTES, bytes,
                     sizeof bytes) < 0) {
        *lookup = ViommuLookup_UNREADABLE;
        return 0;
    }
    for (int word = 0; word < ENTRY_WORDS; word++)
        entry[word] = load_word(bytes + 8 * word);
    *lookup = ViommuLookup_FOUND;
    return 0;
}

int64_t frontend_reset(void *instance)
{
    struct frontend *frontend = instance;

    frame_reset(&frontend->frame, frame_get(&frontend->frame, FEATURES));
    return 0;
}

int64_t frontend_register_name(void *instance, uint64_t offset, struct ViommuText *name)
{
    const char *text = frame_name(offset);

    (void)instance;
    *name = (struct ViommuText){text, text ? strlen(text) : 0};
    return 0;
}

int64_t frontend_trouble(void *instance, struct ViommuMessage *text)
{
    (void)instance, (void)text;
    return 0;
}

/* A saved state: the version, 4 bytes, then every register, 8 bytes each. */
enum { STATE_VERSION = 1, STATE_BYTES = 4 + 8 * REGISTERS };

int64_t frontend_save(void *instance, uint8_t *bytes, size_t room)
{
    const struct frontend *frontend = instance;

    if (room < STATE_BYTES)
        return STATE_BYTES;
    memset(bytes, 0, 4);
    bytes[0] = STATE_VERSION;
    for (int index = 0; index < REGISTERS; index++)
        store_word(bytes + 4 + 8 * index, frontend->frame.value[index]);
    return STATE_BYTES;
}

int64_t frontend_restore(void *instance, const uint8_t *bytes, size_t len, struct ViommuMessage *why)
{
    struct frontend *frontend = instance;
    struct frame saved, written;

    if (len != STATE_BYTES)
        return refuse(why, ViommuRefusal_EINVAL, "saved toy registers: not as long as they are");
    if (bytes[0] != STATE_VERSION || bytes[1] || bytes[2] || bytes[3])
        return refuse(why, ViommuRefusal_EINVAL, "saved toy registers: of a version that is not known");
    for (int index = 0; index < REGISTERS; index++)
        saved.value[index] = load_word(bytes + 4 + 8 * index);
    if (saved.value[ID / 8] != ID_VALUE || saved.value[FEATURES / 8] != frame_get(&frontend->frame, FEATURES))
        return refuse(why, ViommuRefusal_EINVAL, "ID, FEATURES: the guest was shown others");
    /* A register can hold what a write leaves in it; the read-only ones, indices and why a queue stopped. */
    frame_reset(&written, saved.value[FEATURES / 8]);
    for (uint64_t offset = 0; offset < 8 * REGISTERS; offset += 8)
        frame_write(&written, offset, 8, saved.value[offset / 8]);
    written.value[HEAD / 8] = saved.value[HEAD / 8] & (INDEX | (uint64_t)0xff << ERROR_SHIFT);
    written.value[EVENT_TAIL / 8] = saved.value[EVENT_TAIL / 8] & (INDEX | LOST);
    if (memcmp(&written, &saved, sizeof saved) != 0)
        return refuse(why, ViommuRefusal_EINVAL, "saved toy registers: a value that no register can hold");
    frontend->frame = saved;
    return 0;
}

int64_t frontend_covers(const struct ViommuRegister *offered, size_t offered_count, const struct ViommuRegister *shown,
                        size_t shown_count, struct ViommuMessage *why)
{
    struct shown here, there;
    int64_t refused = shown_read(offered, offered_count, DEVICE_CACHE, &here, why);

    if (!refused)
        refused = shown_read(shown, shown_count, DEVICE_CACHE, &there, why);
    if (refused)
        return refused;
    if (there.features & ~here.features & DEVICE_CACHE)
        return refuse(why, ViommuRefusal_EOPNOTSUPP, "FEATURES.DEVICE_CACHE: the guest was shown 1, this host has 0");
    return 0;
}

/* What several parts ask of the manual: registers, commands, entries. */
#include "toy.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int is_register(uint64_t offset)
{
    return offset % 8 == 0 && offset / 8 < REGISTERS;
}

uint64_t frame_get(const struct frame *frame, uint64_t offset)
{
    return is_register(offset) ? frame->value[offset / 8] : 0;
}

void frame_reset(struct frame *frame, uint64_t features)
{
    memset(frame, 0, sizeof *frame);
    frame->value[ID / 8] = ID_VALUE;
    frame->value[FEATURES / 8] = features;
}

uint64_t frame_read(const struct frame *frame, uint64_t offset, uint32_t size)
{
    if (size == 8)
        return frame_get(frame, offset);
    return size == 4 ? frame_get(frame, offset) & 0xffffffff : 0;
}

int frame_write(struct frame *frame, uint64_t offset, uint32_t size, uint64_t value)
{
    uint64_t mask;

    if (size != 4 && size != 8)
        return 0;
    if (size == 4)
        value &= 0xffffffff;
    switch (offset) {
    case CONTROL:
        mask = CONTROL_TRANSLATE | CONTROL_QUEUE | CONTROL_EVENTS;
        break;
    case TABLE:
    case QUEUE:
    case EVENTS:
        mask = ADDRESS;
        break;
    case TAIL:
        mask = INDEX;
        break;
    case EVENT_HEAD:
        mask = INDEX;
        if (value & LOST)
            frame->value[EVENT_TAIL / 8] &= ~(uint64_t)LOST;
        break;
    case RESUME:
        frame->value[HEAD / 8] &= INDEX;
        return 1;
    default:
        return 0;
    }
    frame->value[offset / 8] = value & mask;
    return 1;
}

uint32_t frame_error(const struct frame *frame)
{
    return (uint32_t)(frame->value[HEAD / 8] >> ERROR_SHIFT);
}

uint32_t frame_pending(const struct frame *frame)
{
    return (uint32_t)(frame->value[TAIL / 8] - frame->value[HEAD / 8]) & INDEX;
}

void frame_advance(struct frame *frame, uint32_t commands)
{
    uint64_t *head = &frame->value[HEAD / 8];

    *head = (*head & ~(uint64_t)INDEX) | ((*head + commands) & INDEX);
}

void frame_stop(struct frame *frame, uint32_t error)
{
    uint64_t *head = &frame->value[HEAD / 8];

    *head = (*head & INDEX) | (uint64_t)error << ERROR_SHIFT;
}

uint64_t frame_event_place(struct frame *frame)
{
    uint64_t *tail = &frame->value[EVENT_TAIL / 8], base = frame->value[EVENTS / 8], place = *tail & INDEX;

    if (!(frame->value[CONTROL / 8] & CONTROL_EVENTS))
        return 0;
    if (base == 0 || ((place + 1) & INDEX) == frame->value[EVENT_HEAD / 8]) {
        *tail |= LOST;
        return 0;
    }
    *tail = (*tail & LOST) | ((place + 1) & INDEX);
    return base + place * EVENT_BYTES;
}

const char *frame_name(uint64_t offset)
{
    static const char *const names[REGISTERS] = {"ID",   "FEATURES", "CONTROL", "TABLE",      "QUEUE",     "TAIL",
                                                 "HEAD", "RESUME",   "EVENTS",  "EVENT_TAIL", "EVENT_HEAD"};

    return is_register(offset) ? names[offset / 8] : NULL;
}

void say(struct ViommuMessage *message, const char *format, ...)
{
    char text[512];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    message->len = (uint32_t)((size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
    memcpy(message->bytes, text, message->len);
}

int64_t refuse(struct ViommuMessage *why, int32_t errno_value, const char *text)
{
    say(why, "%s", text);
    return -(int64_t)errno_value;
}

int64_t shown_read(const struct ViommuRegister *registers, size_t count, uint64_t known, struct shown *shown,
                   struct ViommuMessage *why)
{
    shown->features = known;
    for (size_t index = 0; index < count; index++) {
        uint64_t value = registers[index].value;

        if (registers[index].offset == ID && value != ID_VALUE)
            return refuse(why, ViommuRefusal_EINVAL, "ID: this is no toy IOMMU");
        if (registers[index].offset != FEATURES)
            continue;
        if (value & STAGE2 & ~known)
            return refuse(why, ViommuRefusal_EOPNOTSUPP, "FEATURES.STAGE2: a guest is not shown a second stage");
        if (value & ~known)
            return refuse(why, ViommuRefusal_EINVAL, "FEATURES: a feature that there is not");
        shown->features = value;
    }
    return 0;
}

uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word = 0;

    for (int index = 7; index >= 0; index--)
        word = word << 8 | bytes[index];
    return word;
}

void store_word(uint8_t *bytes, uint64_t word)
{
    for (int index = 0; index < 8; index++)
        bytes[index] = (uint8_t)(word >> (8 * index));
}

const char *command_name(uint8_t opcode)
{
    static const char *const names[] = {
        [INVALIDATE_PAGE] = "INVALIDATE_PAGE",
        [INVALIDATE_TAG] = "INVALIDATE_TAG",
        [INVALIDATE_DEVICE] = "INVALIDATE_DEVICE",
        [CHANGED] = "CHANGED",
        [WAIT] = "WAIT",
    };

    return opcode < sizeof names / sizeof *names ? names[opcode] : NULL;
}

int command_allowed(const uint64_t command[COMMAND_WORDS], uint64_t features, uint64_t allowed[COMMAND_WORDS])
{
    const uint64_t stream = UINT64_C(0xffffffff) << STREAM_SHIFT;

    allowed[0] = 0xff;
    allowed[1] = 0;
    switch (command[0] & 0xff) {
    case INVALIDATE_PAGE:
        allowed[0] |= TAG_BITS;
        allowed[1] = ~(PAGE - 1);
        return 1;
    case INVALIDATE_TAG:
        allowed[0] |= TAG_BITS;
        return 1;
    case INVALIDATE_DEVICE:
        allowed[0] |= stream | COMMAND_ALL;
        allowed[1] = command[0] & COMMAND_ALL ? 0 : ~(PAGE - 1);
        return (features & DEVICE_CACHE) != 0;
    case CHANGED:
        allowed[0] |= stream;
        return 1;
    case WAIT:
        allowed[0] |= COMMAND_STORE;
        allowed[1] = command[0] & COMMAND_STORE ? ~UINT64_C(7) : 0;
        return 1;
    default:
        return 0;
    }
}

int entry_is_legal(const uint64_t entry[ENTRY_WORDS], uint64_t features)
{
    uint64_t flags = ENTRY_VALID | ENTRY_TABLE;

    if (features & STAGE2)
        flags |= ENTRY_STAGE2;
    if (entry[0] & flags & ENTRY_STAGE2)
        flags |= UINT64_C(0xffff) << ENTRY_TAG_SHIFT;
    return !(entry[0] & ~flags) && !(entry[1] & ~(entry[0] & ENTRY_TABLE ? ADDRESS : 0)) &&
           !(entry[2] & ~(entry[0] & flags & ENTRY_STAGE2 ? ADDRESS : 0)) && !entry[3];
}

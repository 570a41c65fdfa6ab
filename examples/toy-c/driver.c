/* Programs the physical toy IOMMU. */
#include "driver.h"

#include <stdlib.h>

static uint64_t get(const struct driver *driver, uint64_t offset)
{
    return driver->hardware.mmio_read(driver->hardware.ctx, offset, 8);
}

static void set(const struct driver *driver, uint64_t offset, uint64_t value)
{
    driver->hardware.mmio_write(driver->hardware.ctx, offset, 8, value);
}

static void give_back(struct driver *driver)
{
    const struct ViommuHardwareCalls *hardware = &driver->hardware;

    if (driver->table)
        hardware->free(hardware->ctx, driver->table, TABLE_BYTES);
    if (driver->queue)
        hardware->free(hardware->ctx, driver->queue, QUEUE_BYTES);
    if (driver->events)
        hardware->free(hardware->ctx, driver->events, EVENTS_BYTES);
    free(driver);
}

int64_t driver_create(const struct ViommuHardwareCalls *hardware, void **instance, struct ViommuMessage *why)
{
    struct driver *driver = calloc(1, sizeof *driver);
    int64_t failed;

    if (!driver)
        return refuse(why, ViommuRefusal_ENOMEM, "no memory for a driver");
    driver->hardware = *hardware;
    if (get(driver, ID) != ID_VALUE) {
        free(driver);
        return refuse(why, ViommuRefusal_EOPNOTSUPP, "ID: this is no toy IOMMU");
    }
    driver->features = get(driver, FEATURES);
    if (!(driver->features & STAGE2)) {
        free(driver);
        return refuse(why, ViommuRefusal_EOPNOTSUPP, "FEATURES.STAGE2 = 0: this IOMMU cannot nest");
    }
    failed = hardware->alloc(hardware->ctx, TABLE_BYTES, PAGE, &driver->table, why);
    if (!failed)
        failed = hardware->alloc(hardware->ctx, QUEUE_BYTES, PAGE, &driver->queue, why);
    if (!failed)
        failed = hardware->alloc(hardware->ctx, EVENTS_BYTES, PAGE, &driver->events, why);
    if (failed) {
        give_back(driver);
        return failed;
    }
    /* Zeroed memory is a table of entries that are not valid: every stream aborts. */
    set(driver, TABLE, driver->table);
    set(driver, QUEUE, driver->queue);
    set(driver, EVENTS, driver->events);
    set(driver, CONTROL, CONTROL_TRANSLATE | CONTROL_QUEUE | CONTROL_EVENTS);
    *instance = driver;
    return 0;
}

int64_t driver_destroy(void *instance)
{
    struct driver *driver = instance;

    while (driver->stages)
        driver_stage2_destroy(driver, driver->stages->handle);
    give_back(driver);
    return 0;
}

int64_t driver_info(void *instance, struct ViommuDriverInfo *info)
{
    const struct driver *driver = instance;

    *info = (struct ViommuDriverInfo){
        .ring = {.base = driver->queue,
                 .log2_commands = 8,
                 .command_words = COMMAND_WORDS,
                 .producer = TAIL,
                 .consumer = HEAD,
                 .error_mask = 0xff << ERROR_SHIFT},
        .first_tag = 1,
        .last_tag = 0xffff,
        .streams = STREAMS,
        .page_log2 = 12,
        .ipa_bits = 48,
        .ats = (driver->features & DEVICE_CACHE) != 0,
        .modes = 1 << ViommuTranslationMode_NESTED,
    };
    return 0;
}

int64_t driver_guest_registers(void *instance, ViommuTranslationMode mode, struct ViommuRegister *registers,
                               size_t room)
{
    const struct driver *driver = instance;

    if (mode != ViommuTranslationMode_NESTED)
        return 0;
    if (room >= 2) {
        registers[0] = (struct ViommuRegister){ID, ID_VALUE};
        registers[1] = (struct ViommuRegister){FEATURES, driver->features & DEVICE_CACHE};
    }
    return 2;
}

int64_t driver_attach(void *instance, uint32_t stream, uint32_t stage2, uint32_t tag, const struct ViommuEntryKey *key,
                      struct ViommuMessage *why)
{
    const struct driver *driver = instance;
    const struct stage *in = find_stage(driver, stage2);
    uint64_t entry[4] = {0};

    (void)tag; /* no guest has domains of its own: it is the stage 2's */
    if (!in)
        return refuse(why, ViommuRefusal_ENOENT, "no stage 2 has this handle");
    if (key->kind == ViommuKeyKind_TRANSLATE || key->kind == ViommuKeyKind_BYPASS) {
        entry[0] = ENTRY_VALID | ENTRY_STAGE2 | (uint64_t)in->tag << ENTRY_TAG_SHIFT;
        entry[2] = in->ranges;
    }
    if (key->kind == ViommuKeyKind_TRANSLATE) {
        entry[0] |= ENTRY_TABLE;
        entry[1] = key->words[1];
    }
    return set_entry(driver, stream, entry, why);
}

int64_t driver_detach(void *instance, uint32_t stream, struct ViommuMessage *why)
{
    static const uint64_t nothing[4];

    return set_entry(instance, stream, nothing, why);
}

int64_t driver_encode(void *instance, const struct ViommuHostInvalidation *what, uint64_t *out, size_t out_words)
{
    (void)instance;
    if (out_words < COMMAND_WORDS)
        return 0;
    out[1] = 0;
    switch (what->scope) {
    case ViommuScope_SYNC:
        out[0] = WAIT;
        break;
    case ViommuScope_DEVICE_CACHE:
        out[0] = INVALIDATE_DEVICE | COMMAND_ALL | (uint64_t)what->stream << STREAM_SHIFT;
        break;
    case ViommuScope_CONFIGURATION:
        out[0] = CHANGED | (uint64_t)what->stream << STREAM_SHIFT;
        break;
    default: /* a range of stage 2 is nobody's page: what is cached has the device's addresses */
        out[0] = INVALIDATE_TAG | (uint64_t)(what->tag & 0xffff) << TAG_SHIFT;
    }
    return COMMAND_WORDS;
}

int64_t driver_queue_fault(void *instance, struct ViommuQueueFault *fault)
{
    uint64_t head = get(instance, HEAD);

    switch (head >> ERROR_SHIFT & 0xff) {
    case 0:
        return 0;
    case ERROR_FETCH:
        fault->kind = ViommuQueueFaultKind_FETCH;
        break;
    case ERROR_TIMEOUT:
        fault->kind = ViommuQueueFaultKind_ATC_TIMEOUT;
        break;
    default:
        fault->kind = ViommuQueueFaultKind_ILLEGAL;
    }
    fault->index = (uint32_t)head & INDEX;
    return 1;
}

int64_t driver_queue_resume(void *instance)
{
    set(instance, RESUME, 1);
    return 0;
}

int64_t driver_event(void *instance, struct ViommuHostEvent *event)
{
    const struct driver *driver = instance;
    uint64_t tail = get(driver, EVENT_TAIL), head = get(driver, EVENT_HEAD), words[EVENT_WORDS];

    *event = (struct ViommuHostEvent){.owner = ViommuEventOwner_LOST};
    if ((tail & INDEX) == head) {
        /* Records were lost behind the last that is there. */
        if (!(tail & LOST))
            return 0;
        set(driver, EVENT_HEAD, head | LOST);
        return 1;
    }
    int64_t unread = load_words(driver, driver->events + head * EVENT_BYTES, words, EVENT_WORDS);
    set(driver, EVENT_HEAD, (head + 1) & INDEX);
    if (unread)
        return 1;
    event->stream = (uint32_t)words[0];
    event->code = (uint32_t)(words[0] >> CODE_SHIFT) & 0xff;
    event->owner = event->code == NO_RANGE ? ViommuEventOwner_HOST : ViommuEventOwner_GUEST;
    event->words = EVENT_WORDS;
    event->record[0] = words[0] & ~UINT64_C(0xffffffff);
    event->record[1] = words[1];
    return 1;
}

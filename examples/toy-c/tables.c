/* What the physical toy IOMMU reads: stage 2s and the device table. */
#include "driver.h"

#include <stdlib.h>

int64_t load_words(const struct driver *driver, uint64_t pa, uint64_t *words, int count)
{
    uint8_t bytes[32];
    int64_t failed = driver->hardware.read(driver->hardware.ctx, pa, bytes, 8 * (size_t)count);

    for (int word = 0; word < count && failed >= 0; word++)
        words[word] = load_word(bytes + 8 * word);
    return failed < 0 ? failed : 0;
}

static int64_t store_words(const struct driver *driver, uint64_t pa, const uint64_t words[4], struct ViommuMessage *why)
{
    uint8_t bytes[32];

    for (int word = 0; word < 4; word++)
        store_word(bytes + 8 * word, words[word]);
    if (driver->hardware.write(driver->hardware.ctx, pa, bytes, sizeof bytes) < 0)
        return refuse(why, ViommuRefusal_EIO, "a table is not memory");
    return 0;
}

struct stage *find_stage(const struct driver *driver, uint32_t handle)
{
    struct stage *found = driver->stages;

    while (found && found->handle != handle)
        found = found->next;
    return found;
}

int64_t driver_stage2_create(void *instance, uint32_t tag, uint32_t *stage2, struct ViommuMessage *why)
{
    struct driver *driver = instance;
    struct stage *made = calloc(1, sizeof *made);
    int64_t failed;

    if (!made)
        return refuse(why, ViommuRefusal_ENOMEM, "no memory for a stage 2");
    failed = driver->hardware.alloc(driver->hardware.ctx, RANGES_BYTES, PAGE, &made->ranges, why);
    if (failed) {
        free(made);
        return failed;
    }
    made->handle = ++driver->last_handle;
    made->tag = tag;
    made->next = driver->stages;
    driver->stages = made;
    *stage2 = made->handle;
    return 0;
}

int64_t driver_stage2_map(void *instance, uint32_t stage2, uint64_t ipa, uint64_t pa, uint64_t len, uint32_t access,
                          struct ViommuMessage *why)
{
    const struct driver *driver = instance;
    const struct stage *into = find_stage(driver, stage2);
    const uint64_t range[4] = {ipa, pa, len, RANGE_VALID | (access & 2 ? RANGE_WRITE : 0)};
    uint64_t place = 0;

    if (!into)
        return refuse(why, ViommuRefusal_ENOENT, "no stage 2 has this handle");
    if (!(access & 1))
        return refuse(why, ViommuRefusal_EOPNOTSUPP, "a range can always be read");
    if ((ipa | pa | len) & (PAGE - 1) || !len || ipa >= INPUT_END || len > INPUT_END - ipa)
        return refuse(why, ViommuRefusal_EINVAL, "not whole pages below 2^48");
    for (uint64_t at = into->ranges; at < into->ranges + RANGES * RANGE_BYTES; at += RANGE_BYTES) {
        uint64_t there[4];

        if (load_words(driver, at, there, 4))
            return refuse(why, ViommuRefusal_EIO, "a table is not memory");
        if (!(there[3] & RANGE_VALID))
            place = place ? place : at;
        else if (there[0] < ipa + len && ipa < there[0] + there[2])
            return refuse(why, ViommuRefusal_EEXIST, "mapped in part already");
    }
    if (!place)
        return refuse(why, ViommuRefusal_ENOSPC, "all ranges of this stage 2 are taken");
    return store_words(driver, place, range, why);
}

int64_t driver_stage2_unmap(void *instance, uint32_t stage2, uint64_t ipa, uint64_t len, struct ViommuMessage *why)
{
    static const uint64_t nothing[4];
    const struct driver *driver = instance;
    const struct stage *from = find_stage(driver, stage2);

    if (!from)
        return refuse(why, ViommuRefusal_ENOENT, "no stage 2 has this handle");
    for (uint64_t at = from->ranges; at < from->ranges + RANGES * RANGE_BYTES; at += RANGE_BYTES) {
        uint64_t there[4];

        if (load_words(driver, at, there, 4))
            return refuse(why, ViommuRefusal_EIO, "a table is not memory");
        if (there[3] & RANGE_VALID && there[0] == ipa && there[2] == len)
            return store_words(driver, at, nothing, why);
    }
    return refuse(why, ViommuRefusal_ENOENT, "not what was mapped");
}

int64_t driver_stage2_destroy(void *instance, uint32_t stage2)
{
    struct driver *driver = instance;

    for (struct stage **at = &driver->stages; *at; at = &(*at)->next) {
        struct stage *found = *at;

        if (found->handle != stage2)
            continue;
        *at = found->next;
        driver->hardware.free(driver->hardware.ctx, found->ranges, RANGES_BYTES);
        free(found);
        break;
    }
    return 0;
}

/* Writes a table entry, which hardware reads whole, and says so. */
int64_t set_entry(const struct driver *driver, uint32_t stream, const uint64_t entry[4], struct ViommuMessage *why)
{
    const uint64_t changed[COMMAND_WORDS] = {CHANGED | (uint64_t)stream << STREAM_SHIFT, 0};
    int64_t failed;

    if (stream >= STREAMS)
        return refuse(why, ViommuRefusal_EINVAL, "the stream is beyond the table");
    failed = store_words(driver, driver->table + (uint64_t)stream * ENTRY_BYTES, entry, why);
    return failed ? failed : driver->hardware.issue(driver->hardware.ctx, changed, COMMAND_WORDS, why);
}

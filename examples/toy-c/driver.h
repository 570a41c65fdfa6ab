/* What the driver and its tables share. */
#ifndef TOY_DRIVER_H
#define TOY_DRIVER_H

#include "toy.h"

enum { QUEUE_BYTES = 4096, EVENTS_BYTES = 4096, TABLE_BYTES = STREAMS * ENTRY_BYTES, RANGES_BYTES = 4096 };

/* A stage 2: its page of ranges, and its tag. */
struct stage {
    uint32_t handle, tag;
    uint64_t ranges;
    struct stage *next;
};

struct driver {
    struct ViommuHardwareCalls hardware;
    uint64_t features, table, queue, events;
    uint32_t last_handle;
    struct stage *stages;
};

struct stage *find_stage(const struct driver *driver, uint32_t handle);
/* Reads at most 4 words: 0, or a negative errno. */
int64_t load_words(const struct driver *driver, uint64_t pa, uint64_t *words, int count);
/* Makes the entry of a stream these words. */
int64_t set_entry(const struct driver *driver, uint32_t stream, const uint64_t entry[4], struct ViommuMessage *why);

#endif

/* The toy IOMMU in software. */
#ifndef TOY_MODEL_H
#define TOY_MODEL_H

#include "toy.h"

enum { PLACES = 1024, ALL_FEATURES = DEVICE_CACHE | STAGE2 };

/* A page of a stream, cached (manual, 5). */
struct place {
    uint64_t page, output;
    uint32_t tag, stream;
    uint8_t permissions, stage, full;
};

struct model {
    struct ViommuModelHostCalls host;
    struct frame frame;
    uint64_t features;
    int atc, unanswered;
    struct place tlb[PLACES], device[PLACES];
    uint8_t silent[STREAMS];
    struct ViommuCacheStats stats;
};

/* At most 4 words of memory; 0 if it is not memory. */
int load_memory(const struct model *model, uint64_t pa, uint64_t *words, int count);
/* The entry of the request's stream: 0 if the answer is there already. */
int find_entry(const struct model *model, const struct ViommuRequest *request, uint64_t entry[ENTRY_WORDS],
               struct ViommuAnswer *answer);
/* Walks from an entry that translates; the answer is OK or FAULT. */
void walk(const struct model *model, const uint64_t entry[ENTRY_WORDS], const struct ViommuRequest *request,
          struct ViommuAnswer *answer);

#endif

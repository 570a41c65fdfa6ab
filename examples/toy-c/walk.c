/* How the toy IOMMU in software finds an answer in memory: no caches here. */
#include "model.h"

int load_memory(const struct model *model, uint64_t pa, uint64_t *words, int count)
{
    uint8_t bytes[32];

    if (model->host.read(model->host.ctx, pa, bytes, 8 * (size_t)count) < 0)
        return 0;
    for (int word = 0; word < count; word++)
        words[word] = load_word(bytes + 8 * word);
    return 1;
}

/* Stage 2 of an address: its output and permissions; 0 if no range holds it. */
static int second(const struct model *model, uint64_t ranges, uint64_t address, uint64_t *output, uint32_t *permissions)
{
    for (int index = 0; index < RANGES; index++) {
        uint64_t range[4];

        if (!load_memory(model, ranges + (uint64_t)index * RANGE_BYTES, range, 4))
            return 0;
        if (range[3] & RANGE_VALID && address < INPUT_END && address - range[0] < range[2]) {
            *output = range[1] + (address - range[0]);
            *permissions = range[3] & RANGE_WRITE ? 3 : 1;
            return 1;
        }
    }
    return 0;
}

static void fault(struct ViommuAnswer *answer, uint32_t code, uint32_t stage, uint64_t ipa)
{
    *answer = (struct ViommuAnswer){
        .status = ViommuStatus_FAULT, .fault = code, .stage = stage, .ipa = ipa, .leaf_log2 = 12};
}

/* Walks from an entry that translates; the answer is OK or FAULT. */
void walk(const struct model *model, const uint64_t entry[ENTRY_WORDS], const struct ViommuRequest *request,
          struct ViommuAnswer *answer)
{
    const int stage2 = (entry[0] & ENTRY_STAGE2) != 0;
    uint64_t address = request->iova, leaf;
    uint32_t granted = 3, needed = request->access & 3, more;

    if (entry[0] & ENTRY_TABLE) {
        uint64_t place = entry[1] + request->iova / PAGE * 8;

        if (request->iova / PAGE >= PAGES) {
            fault(answer, NO_PAGE, 1, 0);
            return;
        }
        if (stage2 && !second(model, entry[2], place, &place, &more)) {
            fault(answer, NO_RANGE, 2, entry[1] + request->iova / PAGE * 8);
            return;
        }
        if (!load_memory(model, place, &leaf, 1) || !(leaf & PAGE_VALID) || leaf & ~(ADDRESS | PAGE_VALID | PAGE_WRITE)) {
            fault(answer, NO_PAGE, 1, 0);
            return;
        }
        granted = leaf & PAGE_WRITE ? 3 : 1;
        if (needed & ~granted) {
            fault(answer, NO_PAGE, 1, 0);
            return;
        }
        address = (leaf & ADDRESS) | (request->iova & (PAGE - 1));
    }
    if (stage2) {
        uint64_t ipa = address;

        if (!second(model, entry[2], ipa, &address, &more) || needed & ~more) {
            fault(answer, NO_RANGE, 2, ipa);
            return;
        }
        granted &= more;
    }
    *answer = (struct ViommuAnswer){.status = ViommuStatus_OK,
                                    .stage = entry[0] & ENTRY_TABLE ? 1 : 2,
                                    .output = address,
                                    .permissions = granted,
                                    .leaf_log2 = 12};
}

/* The entry of the request's stream: 0 if the answer is there already. */
int find_entry(const struct model *model, const struct ViommuRequest *request, uint64_t entry[ENTRY_WORDS],
               struct ViommuAnswer *answer)
{
    const struct ViommuAnswer identity = {.output = request->iova, .permissions = 3, .leaf_log2 = 12};

    *answer = identity;
    if (!(frame_get(&model->frame, CONTROL) & CONTROL_TRANSLATE)) {
        answer->status = ViommuStatus_DISABLED;
        return 0;
    }
    if (request->stream >= STREAMS || request->pasid != UINT32_MAX ||
        !load_memory(model, frame_get(&model->frame, TABLE) + (uint64_t)request->stream * ENTRY_BYTES, entry, ENTRY_WORDS)) {
        fault(answer, BAD_ENTRY, 0, 0);
        return 0;
    }
    if (!(entry[0] & ENTRY_VALID)) {
        *answer = (struct ViommuAnswer){.status = ViommuStatus_ABORT, .leaf_log2 = 12};
        return 0;
    }
    if (!entry_is_legal(entry, model->features)) {
        fault(answer, BAD_ENTRY, 0, 0);
        return 0;
    }
    answer->status = ViommuStatus_BYPASS;
    return (entry[0] & (ENTRY_TABLE | ENTRY_STAGE2)) != 0;
}

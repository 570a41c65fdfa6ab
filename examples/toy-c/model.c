/* The toy IOMMU in software. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

int64_t model_create(const struct ViommuModelHostCalls *host, const struct ViommuModelSetup *setup, void **instance,
                     struct ViommuMessage *why)
{
    struct model *model = calloc(1, sizeof *model);
    struct shown shown;
    int64_t refused;

    if (!model)
        return refuse(why, ViommuRefusal_ENOMEM, "no memory for a model");
    refused = shown_read(setup->registers, setup->register_count, ALL_FEATURES, &shown, why);
    if (refused) {
        free(model);
        return refused;
    }
    model->host = *host;
    model->features = shown.features;
    model->atc = setup->atc && shown.features & DEVICE_CACHE;
    frame_reset(&model->frame, model->features);
    *instance = model;
    return 0;
}

int64_t model_destroy(void *instance)
{
    free(instance);
    return 0;
}

int64_t model_mmio_read(void *instance, uint64_t offset, uint32_t size, uint64_t *value)
{
    const struct model *model = instance;

    *value = frame_read(&model->frame, offset, size);
    return 0;
}

int64_t model_mmio_write(void *instance, uint64_t offset, uint32_t size, uint64_t value)
{
    struct model *model = instance;

    frame_write(&model->frame, offset, size, value);
    return 0;
}

/* Forgets what fits; a mask of zero means that anything fits. */
static void forget(struct place *places, uint32_t tag, uint32_t stream, uint64_t page, uint32_t tag_mask,
                   uint32_t stream_mask, uint64_t page_mask)
{
    for (struct place *place = places; place < places + PLACES; place++)
        if (!((place->tag ^ tag) & tag_mask) && !((place->stream ^ stream) & stream_mask) &&
            !((place->page ^ page) & page_mask))
            place->full = 0;
}

/* Executes a command: 0, or why the queue stops. */
static uint32_t execute(struct model *model, const uint64_t command[COMMAND_WORDS])
{
    uint32_t tag = model->features & STAGE2 ? (uint32_t)((command[0] & TAG_BITS) >> TAG_SHIFT) : 0;
    uint32_t stream = (uint32_t)(command[0] >> STREAM_SHIFT);
    uint64_t allowed[COMMAND_WORDS], page = command[1] / PAGE;

    if (!command_allowed(command, model->features, allowed) || command[0] & ~allowed[0] || command[1] & ~allowed[1])
        return ERROR_ILLEGAL;
    switch (command[0] & 0xff) {
    case INVALIDATE_PAGE:
        forget(model->tlb, tag, 0, page, UINT32_MAX, 0, UINT64_MAX);
        break;
    case INVALIDATE_TAG:
        forget(model->tlb, tag, 0, 0, UINT32_MAX, 0, 0);
        break;
    case INVALIDATE_DEVICE:
        model->unanswered |= stream < STREAMS && model->silent[stream];
        forget(model->device, 0, stream, page, 0, UINT32_MAX, command[0] & COMMAND_ALL ? 0 : UINT64_MAX);
        break;
    case CHANGED:
        forget(model->tlb, 0, stream, 0, 0, UINT32_MAX, 0);
        break;
    case WAIT:
        if (model->unanswered) {
            model->unanswered = 0;
            return ERROR_TIMEOUT;
        }
        if (command[0] & COMMAND_STORE) {
            uint8_t one[8];

            store_word(one, 1);
            /* A store to nowhere is lost, as on a bus. */
            model->host.write(model->host.ctx, command[1], one, sizeof one);
        }
        break;
    }
    return 0;
}

int64_t model_step(void *instance, uint32_t budget)
{
    struct model *model = instance;
    struct frame *frame = &model->frame;
    uint32_t done = 0;

    while (done < budget && frame_get(frame, CONTROL) & CONTROL_QUEUE && !frame_error(frame) && frame_pending(frame)) {
        uint64_t command[COMMAND_WORDS], index = frame_get(frame, HEAD) & INDEX;
        uint32_t error = ERROR_FETCH;

        if (load_memory(model, frame_get(frame, QUEUE) + index * COMMAND_BYTES, command, COMMAND_WORDS))
            error = execute(model, command);
        if (error) {
            frame_stop(frame, error);
            model->host.irq(model->host.ctx, LINE_ERROR);
            break;
        }
        frame_advance(frame, 1);
        done++;
    }
    return done;
}

static struct place *place_of(struct place *places, uint32_t stream, uint64_t page)
{
    return &places[(page + 37 * (uint64_t)stream) % PLACES];
}

/* Answers from a place that fits. */
static int lookup(const struct place *place, uint32_t tag, const struct ViommuRequest *request, uint32_t flags,
                  struct ViommuAnswer *answer)
{
    if (!place->full || place->tag != tag || place->stream != request->stream ||
        place->page != request->iova / PAGE || (request->access & 3) & ~(uint32_t)place->permissions)
        return 0;
    *answer = (struct ViommuAnswer){.status = ViommuStatus_OK,
                                    .stage = place->stage,
                                    .output = place->output | (request->iova & (PAGE - 1)),
                                    .permissions = place->permissions,
                                    .leaf_log2 = 12,
                                    .flags = flags};
    return 1;
}

static void fill(struct model *model, struct place *place, uint32_t tag, const struct ViommuRequest *request,
                 const struct ViommuAnswer *answer)
{
    uint64_t page = request->iova / PAGE;

    if (place->full && (place->tag != tag || place->stream != request->stream || place->page != page))
        model->stats.evictions++;
    *place = (struct place){.page = page,
                            .output = answer->output & ~(PAGE - 1),
                            .tag = tag,
                            .stream = request->stream,
                            .permissions = (uint8_t)answer->permissions,
                            .stage = (uint8_t)answer->stage,
                            .full = 1};
}

static void answer_one(struct model *model, const struct ViommuRequest *request, struct ViommuAnswer *answer)
{
    const int counts = !(request->flags & ViommuRequest_SPECULATIVE);
    uint64_t entry[ENTRY_WORDS];
    struct place *tlb = place_of(model->tlb, request->stream, request->iova / PAGE);
    struct place *device = place_of(model->device, request->stream, request->iova / PAGE);
    uint32_t tag;
    int hit;

    if (!find_entry(model, request, entry, answer))
        return;
    tag = (uint32_t)(entry[0] >> ENTRY_TAG_SHIFT);
    if (model->atc) {
        hit = lookup(device, 0, request, 2, answer);
        if (counts)
            *(hit ? &model->stats.atc_hits : &model->stats.atc_misses) += 1;
        if (hit)
            return;
    }
    hit = lookup(tlb, tag, request, 1, answer);
    if (counts && entry[0] & ENTRY_TABLE)
        *(hit ? &model->stats.hits : &model->stats.misses) += 1;
    else if (counts)
        *(hit ? &model->stats.stage2_hits : &model->stats.stage2_misses) += 1;
    if (!hit) {
        walk(model, entry, request, answer);
        if (answer->status != ViommuStatus_OK)
            return;
        fill(model, tlb, tag, request, answer);
    }
    if (model->atc)
        fill(model, device, 0, request, answer);
}

static void record(struct model *model, const struct ViommuRequest *request, uint32_t code)
{
    uint64_t place = frame_event_place(&model->frame);
    uint8_t bytes[EVENT_BYTES];

    if (!place)
        return;
    store_word(bytes, request->stream | (uint64_t)code << CODE_SHIFT);
    store_word(bytes + 8, request->iova);
    /* An event queue that is not memory loses its records. */
    model->host.write(model->host.ctx, place, bytes, sizeof bytes);
    model->host.irq(model->host.ctx, LINE_EVENT);
}

int64_t model_translate(void *instance, const struct ViommuRequest *requests, size_t request_count,
                        struct ViommuAnswer *answers, size_t answer_room)
{
    struct model *model = instance;
    size_t count = request_count < answer_room ? request_count : answer_room;

    for (size_t index = 0; index < count; index++) {
        answer_one(model, &requests[index], &answers[index]);
        if (answers[index].status == ViommuStatus_FAULT && !(requests[index].flags & ViommuRequest_SPECULATIVE))
            record(model, &requests[index], answers[index].fault);
    }
    return (int64_t)count;
}

int64_t model_explain(void *instance, const struct ViommuRequest *request, struct ViommuMessage *text)
{
    const struct model *model = instance;
    uint64_t entry[ENTRY_WORDS] = {0};
    struct ViommuAnswer answer;

    if (find_entry(model, request, entry, &answer))
        walk(model, entry, request, &answer);
    say(text, "stream 0x%x, entry 0x%llx 0x%llx 0x%llx: without caches status %u, output 0x%llx, fault %u", request->stream,
        (unsigned long long)entry[0], (unsigned long long)entry[1], (unsigned long long)entry[2],
        (unsigned)answer.status, (unsigned long long)answer.output, (unsigned)answer.fault);
    return 0;
}

int64_t model_stats(void *instance, struct ViommuCacheStats *stats)
{
    const struct model *model = instance;

    *stats = model->stats;
    return 0;
}

int64_t model_atc_unresponsive(void *instance, uint32_t stream, uint32_t unresponsive)
{
    struct model *model = instance;

    if (stream < STREAMS)
        model->silent[stream] = unresponsive != 0;
    return 0;
}

int64_t model_reset(void *instance)
{
    struct model *model = instance;

    frame_reset(&model->frame, model->features);
    memset(model->tlb, 0, sizeof model->tlb);
    memset(model->device, 0, sizeof model->device);
    memset(model->silent, 0, sizeof model->silent);
    model->unanswered = 0;
    return 0;
}

/* The toy IOMMU's bits, as ../toy-iommu.md has them, and what the parts of this plugin share. */
#ifndef TOY_H
#define TOY_H

#include <viommu_plugin.h>

/* Registers (manual, 1). */
enum {
    ID = 0x00,
    FEATURES = 0x08,
    CONTROL = 0x10,
    TABLE = 0x18,
    QUEUE = 0x20,
    TAIL = 0x28,
    HEAD = 0x30,
    RESUME = 0x38,
    EVENTS = 0x40,
    EVENT_TAIL = 0x48,
    EVENT_HEAD = 0x50,
    REGISTERS = 11,
    FRAME_BYTES = 0x1000,
};

#define ID_VALUE UINT64_C(0x01796f74)

enum { DEVICE_CACHE = 1, STAGE2 = 2 };
enum { CONTROL_TRANSLATE = 1, CONTROL_QUEUE = 2, CONTROL_EVENTS = 4 };
enum { ERROR_SHIFT = 8, ERROR_ILLEGAL = 1, ERROR_FETCH = 2, ERROR_TIMEOUT = 3, ERROR_HOST = 4 };
enum { INDEX = 0xff, LOST = 0x100 };
enum { LINE_EVENT = 0, LINE_ERROR = 1 };

/* Bits 51:12: an address in a register or a table. */
#define ADDRESS UINT64_C(0x000ffffffffff000)
#define PAGE UINT64_C(0x1000)

/* Commands (manual, 2). */
enum { COMMAND_WORDS = 2, COMMAND_BYTES = 16 };
enum { INVALIDATE_PAGE = 1, INVALIDATE_TAG = 2, INVALIDATE_DEVICE = 3, CHANGED = 4, WAIT = 5 };
enum { COMMAND_ALL = 0x100, COMMAND_STORE = 0x100, TAG_SHIFT = 16, STREAM_SHIFT = 32 };
#define TAG_BITS (UINT64_C(0xffff) << TAG_SHIFT)

/* Device table (manual, 3). */
enum { ENTRY_WORDS = 4, ENTRY_BYTES = 32, STREAMS = 4096 };
enum { ENTRY_VALID = 1, ENTRY_TABLE = 2, ENTRY_STAGE2 = 4, ENTRY_TAG_SHIFT = 48 };
enum { PAGE_VALID = 1, PAGE_WRITE = 2, PAGES = 512 };
enum { RANGES = 128, RANGE_BYTES = 32, RANGE_VALID = 1, RANGE_WRITE = 2 };
#define INPUT_END (UINT64_C(1) << 48)

/* Events (manual, 4). */
enum { EVENT_WORDS = 2, EVENT_BYTES = 16, CODE_SHIFT = 32 };
enum { BAD_ENTRY = 1, NO_PAGE = 2, NO_RANGE = 3 };

/* The registers of a guest's or of the physical IOMMU. */
struct frame {
    uint64_t value[REGISTERS];
};

void frame_reset(struct frame *frame, uint64_t features);
uint64_t frame_read(const struct frame *frame, uint64_t offset, uint32_t size);
/* Whether the register at `offset` took the value. */
int frame_write(struct frame *frame, uint64_t offset, uint32_t size, uint64_t value);
uint64_t frame_get(const struct frame *frame, uint64_t offset);
uint32_t frame_error(const struct frame *frame);
uint32_t frame_pending(const struct frame *frame);
void frame_advance(struct frame *frame, uint32_t commands);
void frame_stop(struct frame *frame, uint32_t error);
/* Takes the next place of the event queue: its address; 0 if there is none, which LOST then says. */
uint64_t frame_event_place(struct frame *frame);
const char *frame_name(uint64_t offset);

/* ID registers as they are handed in; what is not listed has our own value. */
struct shown {
    uint64_t features;
};

/* Reads them: 0, or a negative errno with a reason. `known` are the features there may be. */
int64_t shown_read(const struct ViommuRegister *registers, size_t count, uint64_t known, struct shown *shown,
                   struct ViommuMessage *why);

/* Writes a reason and gives the negative errno. */
int64_t refuse(struct ViommuMessage *why, int32_t errno_value, const char *text);
void say(struct ViommuMessage *message, const char *format, ...);

uint64_t load_word(const uint8_t *bytes);
void store_word(uint8_t *bytes, uint64_t word);

/* The bits that a command may have with these features; 0 if there is no such command. */
int command_allowed(const uint64_t command[COMMAND_WORDS], uint64_t features, uint64_t allowed[COMMAND_WORDS]);
const char *command_name(uint8_t opcode);
/* Whether an entry with VALID is legal with these features. */
int entry_is_legal(const uint64_t entry[ENTRY_WORDS], uint64_t features);

extern const struct ViommuPluginEntry viommu_plugin_entry;

/* The slots of each part, for the table in toy.c. */
#define SLOT(name) int64_t name
SLOT(frontend_create)(const struct ViommuRegister *, size_t, void **, struct ViommuMessage *);
SLOT(frontend_destroy)(void *);
SLOT(frontend_read)(void *, uint64_t, uint32_t, uint64_t *);
SLOT(frontend_write)(void *, uint64_t, uint32_t, uint64_t, struct ViommuEffects *);
SLOT(frontend_queue)(void *, struct ViommuGuestQueue *);
SLOT(frontend_advance)(void *, uint32_t);
SLOT(frontend_fault)(void *, ViommuGuestFault, struct ViommuEffects *);
SLOT(frontend_sync_done)(void *, const uint64_t *, size_t, struct ViommuEffects *);
SLOT(frontend_event)(void *, uint32_t, const uint64_t *, size_t, struct ViommuEffects *);
SLOT(frontend_event_lost)(void *, struct ViommuEffects *);
SLOT(frontend_mode)(void *, ViommuMode *);
SLOT(frontend_entry)(void *, const struct ViommuGuestMemoryCalls *, uint32_t, uint64_t *, size_t, ViommuLookup *);
SLOT(frontend_reset)(void *);
SLOT(frontend_register_name)(void *, uint64_t, struct ViommuText *);
SLOT(frontend_trouble)(void *, struct ViommuMessage *);
SLOT(frontend_save)(void *, uint8_t *, size_t);
SLOT(frontend_restore)(void *, const uint8_t *, size_t, struct ViommuMessage *);
SLOT(frontend_covers)(const struct ViommuRegister *, size_t, const struct ViommuRegister *, size_t,
                      struct ViommuMessage *);

SLOT(codec_create)(const struct ViommuRegister *, size_t, void **, struct ViommuMessage *);
SLOT(codec_destroy)(void *);
SLOT(codec_rewrite)(void *, const uint64_t *, size_t, ViommuClasses, const struct ViommuHostIdTable *, uint64_t *,
                    size_t, struct ViommuRewritten *);
SLOT(codec_configuration)(void *, const uint64_t *, size_t, struct ViommuConfiguration *);
SLOT(codec_entry_key)(void *, const uint64_t *, size_t, struct ViommuEntryKey *);
SLOT(codec_opcode)(void *, const uint64_t *, size_t);
SLOT(codec_opcode_name)(void *, uint8_t, struct ViommuText *);
SLOT(codec_describe)(void *, const uint64_t *, size_t, struct ViommuMessage *);

SLOT(driver_create)(const struct ViommuHardwareCalls *, void **, struct ViommuMessage *);
SLOT(driver_destroy)(void *);
SLOT(driver_info)(void *, struct ViommuDriverInfo *);
SLOT(driver_guest_registers)(void *, ViommuTranslationMode, struct ViommuRegister *, size_t);
SLOT(driver_stage2_create)(void *, uint32_t, uint32_t *, struct ViommuMessage *);
SLOT(driver_stage2_map)(void *, uint32_t, uint64_t, uint64_t, uint64_t, uint32_t, struct ViommuMessage *);
SLOT(driver_stage2_unmap)(void *, uint32_t, uint64_t, uint64_t, struct ViommuMessage *);
SLOT(driver_stage2_destroy)(void *, uint32_t);
SLOT(driver_attach)(void *, uint32_t, uint32_t, uint32_t, const struct ViommuEntryKey *, struct ViommuMessage *);
SLOT(driver_detach)(void *, uint32_t, struct ViommuMessage *);
SLOT(driver_encode)(void *, const struct ViommuHostInvalidation *, uint64_t *, size_t);
SLOT(driver_queue_fault)(void *, struct ViommuQueueFault *);
SLOT(driver_queue_resume)(void *);
SLOT(driver_event)(void *, struct ViommuHostEvent *);

SLOT(model_create)(const struct ViommuModelHostCalls *, const struct ViommuModelSetup *, void **,
                   struct ViommuMessage *);
SLOT(model_destroy)(void *);
SLOT(model_mmio_read)(void *, uint64_t, uint32_t, uint64_t *);
SLOT(model_mmio_write)(void *, uint64_t, uint32_t, uint64_t);
SLOT(model_step)(void *, uint32_t);
SLOT(model_translate)(void *, const struct ViommuRequest *, size_t, struct ViommuAnswer *, size_t);
SLOT(model_explain)(void *, const struct ViommuRequest *, struct ViommuMessage *);
SLOT(model_stats)(void *, struct ViommuCacheStats *);
SLOT(model_atc_unresponsive)(void *, uint32_t, uint32_t);
SLOT(model_reset)(void *);

#endif

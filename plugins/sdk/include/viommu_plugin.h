/* The contract between viommu and a plugin, for plugins in C. Generated from plugins/sdk/src by
 * `VIOMMU_BLESS=1 cargo test -p viommu-plugin --test header`; the Rust documentation says more. */

#ifndef VIOMMU_PLUGIN_H
#define VIOMMU_PLUGIN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 Version of the table's layout that cannot be read by a host of another major version.
 */
#define ViommuABI_MAJOR 2

/*
 Counts the slots appended since [`ABI_MAJOR`] began.
 */
#define ViommuABI_MINOR 3

/*
 What a slot returns when the plugin panicked in this call (-EOWNERDEAD).
 */
#define ViommuPANICKED -130

/*
 What a slot returns on an instance that panicked in an earlier call (-ENOTRECOVERABLE).
 */
#define ViommuDEAD -131

/*
 In [`HostIds::streams`]: this guest ID has no device.
 */
#define ViommuNO_STREAM UINT32_MAX

/*
 In [`HostIds::domains`]: no nested HWPT of this guest has this domain.
 */
#define ViommuNO_TAG UINT32_MAX

/*
 In [`EntryKey::domain`]: the entry names no domain of the guest's own.
 */
#define ViommuNO_DOMAIN UINT32_MAX

/*
 Entries of page tables that one [`Codec::walk`] reads at most: whoever holds a lock around it holds it no longer.
 */
#define ViommuWALK_READS 4096

/*
 In the capabilities of GET_HW_INFO: the device, or the IOMMU it is behind, has no ATS. Older kernels never set it.
 */
#define ViommuPCI_ATS_NOT_SUPPORTED (1 << 3)

/*
 Understood but wrong.
 */
#define ViommuRefusal_EINVAL 22

/*
 A value this implementation does not support.
 */
#define ViommuRefusal_EOPNOTSUPP 95

/*
 No such address.
 */
#define ViommuRefusal_ENXIO 6

/*
 An address that is not backed, or not as it must be.
 */
#define ViommuRefusal_EFAULT 14

/*
 No memory.
 */
#define ViommuRefusal_ENOMEM 12

/*
 No such ID.
 */
#define ViommuRefusal_ENOENT 2

/*
 In use.
 */
#define ViommuRefusal_EBUSY 16

/*
 Exists already.
 */
#define ViommuRefusal_EEXIST 17

/*
 A pool is exhausted.
 */
#define ViommuRefusal_ENOSPC 28

/*
 The hardware did not answer in time.
 */
#define ViommuRefusal_ETIMEDOUT 110

/*
 The hardware refused.
 */
#define ViommuRefusal_EIO 5

/*
 UTF-8 text that lives as long as the library is mapped, which is for ever. `bytes` is null for no text.
 */
struct ViommuText {
  /*
   The first byte; no terminating zero is needed.
   */
  const char *bytes;
  /*
   Length in bytes.
   */
  size_t len;
};

/*
 One register with its value: how ID registers are handed in.
 */
struct ViommuRegister {
  /*
   Byte offset in the register frame.
   */
  uint64_t offset;
  /*
   Value as a read of the register's natural size returns it.
   */
  uint64_t value;
};

/*
 Text buffer lent across the plugin boundary. What does not fit is cut at a character boundary.
 */
struct ViommuMessage {
  uint32_t len;
  uint8_t bytes[2044];
};

/*
 What the framework has to do after a register write; a bit set.
 */
typedef uint32_t ViommuActions;
/*
 The command queue may have work (doorbell, queue enabled, error acknowledged).
 */
#define ViommuActions_KICK 1
/*
 [`Frontend::mode`] or the table base may have changed: every vdevice's entry must be read again.
 */
#define ViommuActions_RECONFIGURE 2
/*
 [`Frontend::hw_queues`] may have changed.
 */
#define ViommuActions_HW_QUEUES 4

/*
 Bytes to store in guest memory (an event record, a completion word).
 */
struct ViommuGuestStore {
  /*
   Guest physical address.
   */
  uint64_t gpa;
  /*
   Bytes used of `bytes`.
   */
  uint32_t len;
  /*
   Keeps the layout free of padding; zero.
   */
  uint32_t reserved;
  /*
   The bytes.
   */
  uint8_t bytes[32];
};


/*
 A message-signalled interrupt of the guest's IOMMU.
 */
struct ViommuMsi {
  /*
   Guest physical doorbell address.
   */
  uint64_t address;
  /*
   Payload.
   */
  uint32_t data;
  /*
   Keeps the layout free of padding; zero.
   */
  uint32_t reserved;
};

/*
 What a frontend call asks the framework to do, in this order: stores, then interrupts, then actions.
 */
struct ViommuEffects {
  /*
   See [`Actions`].
   */
  ViommuActions actions;
  /*
   Wired interrupt lines to pulse, by the vendor's number (Arm: 0 EVTQ, 1 PRIQ, 2 CMD_SYNC, 3 GERROR).
   */
  uint32_t lines;
  /*
   How many of `stores` are used.
   */
  uint32_t store_count;
  /*
   How many of `msis` are used.
   */
  uint32_t msi_count;
  /*
   Stores into guest memory.
   */
  struct ViommuGuestStore stores[1];
  /*
   Messages to send.
   */
  struct ViommuMsi msis[2];
};

/*
 Whether the guest's command queue runs.
 */
typedef uint32_t ViommuQueueState;
/*
 Not enabled by the guest.
 */
#define ViommuQueueState_DISABLED 0
/*
 Enabled; `pending` commands wait.
 */
#define ViommuQueueState_RUNNING 1
/*
 Stopped by an error the guest has not acknowledged.
 */
#define ViommuQueueState_STOPPED 2

/*
 What a guest did wrong. It is data: it becomes what hardware would do to this guest, and a counter.
 */
typedef uint32_t ViommuGuestFault;
/*
 No fault.
 */
#define ViommuGuestFault_NONE 0
/*
 An opcode that does not exist or that this guest may not use.
 */
#define ViommuGuestFault_ILLEGAL_OPCODE 1
/*
 A reserved bit set, or a field with a value the features shown to this guest do not allow.
 */
#define ViommuGuestFault_RESERVED_BITS 2
/*
 The queue, or an address it needs, is outside the guest's memory (fetch abort).
 */
#define ViommuGuestFault_FETCH_ABORT 3
/*
 A device of this guest did not answer an ATC invalidation in time.
 */
#define ViommuGuestFault_ATC_TIMEOUT 4
/*
 The queue registers contradict each other (size, PROD beyond the queue).
 */
#define ViommuGuestFault_QUEUE_CONFIG 5
/*
 The host refused or lost the command's effect; the guest must assume nothing.
 */
#define ViommuGuestFault_HOST_ERROR 6
/*
 An event record could not be stored: the event queue is outside the guest's memory. Not the command queue's.
 */
#define ViommuGuestFault_EVENT_ABORT 7

/*
 The guest's command queue as its registers describe it now.
 */
struct ViommuGuestQueue {
  /*
   Guest physical address of entry 0.
   */
  uint64_t base;
  /*
   Size in commands.
   */
  uint32_t capacity;
  /*
   Next command to fetch, `0..capacity`.
   */
  uint32_t head;
  /*
   Commands between head and tail, at most `capacity`.
   */
  uint32_t pending;
  /*
   Words of 8 bytes a command.
   */
  uint32_t command_words;
  /*
   Enabled, disabled, stopped.
   */
  ViommuQueueState state;
  /*
   If the registers make no sense: what to report to the guest instead of fetching.
   */
  ViommuGuestFault fault;
};

/*
 What DMA does while no table entry is looked at.
 */
typedef uint32_t ViommuMode;
/*
 The guest's IOMMU is off: DMA passes untranslated.
 */
#define ViommuMode_BYPASS 0
/*
 The guest's IOMMU is off: DMA is aborted (Arm GBPA.ABORT).
 */
#define ViommuMode_ABORT 1
/*
 The guest's tables decide.
 */
#define ViommuMode_TRANSLATE 2

/*
 [`crate::GuestMemory`] as it crosses the boundary; lent for one call.
 */
struct ViommuGuestMemoryCalls {
  /*
   Bytes of this struct.
   */
  uint32_t size;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   Handed to every function.
   */
  void *ctx;
  /*
   Fills `bytes` from guest physical `gpa`.
   */
  int64_t (*read)(void *ctx, uint64_t gpa, uint8_t *bytes, size_t len);
};

/*
 Outcome of looking up a guest ID's table entry.
 */
typedef uint32_t ViommuLookup;
/*
 The entry was read.
 */
#define ViommuLookup_FOUND 0
/*
 The guest's table has no entry for this ID (Arm C_BAD_STREAMID).
 */
#define ViommuLookup_NO_ENTRY 1
/*
 The guest's table is not in its memory (Arm F_STE_FETCH).
 */
#define ViommuLookup_UNREADABLE 2

/*
 Kinds of invalidation, as a bit set: what a run of commands holds, or what is on the ring without a SYNC.
 */
typedef uint32_t ViommuClasses;
/*
 Nothing.
 */
#define ViommuClasses_NONE 0
/*
 Translation cache (TLB) invalidations.
 */
#define ViommuClasses_TLB 1
/*
 Configuration cache invalidations (CD, PASID entry).
 */
#define ViommuClasses_CONFIG 2
/*
 Device cache (ATC) invalidations: may only follow *synced* TLB invalidations, and may time out.
 */
#define ViommuClasses_ATC 4

/*
 [`crate::HostIds`] as it crosses the boundary.
 */
struct ViommuHostIdTable {
  /*
   Host stream by guest ID, `u32::MAX` where no vdevice is.
   */
  const uint32_t *streams;
  /*
   Entries of `streams`.
   */
  size_t stream_count;
  /*
   Host tag by the guest's own domain number, `u32::MAX` where no nested HWPT has it.
   */
  const uint32_t *domains;
  /*
   Entries of `domains`.
   */
  size_t domain_count;
  /*
   The translation tag of the guest's nesting parent.
   */
  uint32_t tag;
  /*
   Zero.
   */
  uint32_t reserved;
};

/*
 Why [`Codec::rewrite`] stopped. An open set: a host treats values it does not know as [`Stop::FAULT`].
 */
typedef uint32_t ViommuStop;
/*
 All guest words were taken.
 */
#define ViommuStop_END 0
/*
 The next command waits for completion of all before it (CMD_SYNC, COMPLETION_WAIT, wait descriptor).
 */
#define ViommuStop_SYNC 1
/*
 The next command tells of a changed table entry: see [`Codec::configuration`].
 */
#define ViommuStop_CONFIGURATION 2
/*
 The next command may only go out after what was taken so far (or what `before` named) is synced by the
 hardware: put a SYNC on the ring and continue.
 */
#define ViommuStop_ORDER 3
/*
 The next command is one the guest may not send: [`Rewritten::fault`] says why.
 */
#define ViommuStop_FAULT 4
/*
 No room in `out` for the next command.
 */
#define ViommuStop_ROOM 5
/*
 The next command says that page tables of the guest changed of which the hardware has copies: see
 [`Codec::shadow_range`]. Only of a codec in [`TranslationMode::SHADOW`].
 */
#define ViommuStop_SHADOW 6

/*
 How far a rewrite got, and why it stopped there.
 */
struct ViommuRewritten {
  /*
   Guest commands consumed, from the first. Includes the local ones.
   */
  uint32_t taken;
  /*
   Host commands written to `out`.
   */
  uint32_t written;
  /*
   Why it stopped.
   */
  ViommuStop stop;
  /*
   Set if `stop` is [`Stop::FAULT`].
   */
  ViommuGuestFault fault;
  /*
   Classes among the host commands written.
   */
  ViommuClasses classes;
  /*
   Of `taken`: commands naming a stream without a vdevice, complete without hardware.
   */
  uint32_t local_stream;
  /*
   Of `taken`: commands naming a domain that no nested HWPT has, complete without hardware.
   */
  uint32_t local_domain;
  /*
   Of `taken`: hints (prefetch) and what the VMM itself emulates (interrupt tables), complete without hardware.
   */
  uint32_t hints;
  /*
   Of `written`: TLB invalidations.
   */
  uint32_t tlb;
  /*
   Of `written`: configuration cache invalidations.
   */
  uint32_t config;
  /*
   Of `written`: device cache invalidations.
   */
  uint32_t atc;
  /*
   Zero.
   */
  uint32_t reserved;
};

/*
 Which guest IDs' table entries a configuration command says have changed: `first..=last`.
 */
struct ViommuConfiguration {
  /*
   First guest ID.
   */
  uint32_t first;
  /*
   Last guest ID, inclusive; `0..=u32::MAX` is "all", `1..=0` is none.
   */
  uint32_t last;
  /*
   1 if the hardware is also to forget all that it cached of this guest's translations, its devices' caches too.
   */
  uint32_t flush;
  /*
   Zero.
   */
  uint32_t reserved;
};
/*
 No entry, but all translations of this guest.
 */
#define ViommuConfiguration_FLUSH (ViommuConfiguration){ .first = 1, .last = 0, .flush = 1, .reserved = 0 }
/*
 All entries, and all translations of this guest.
 */
#define ViommuConfiguration_EVERYTHING (ViommuConfiguration){ .first = 0, .last = UINT32_MAX, .flush = 1, .reserved = 0 }

/*
 What a guest table entry asks for.
 */
typedef uint32_t ViommuKeyKind;
/*
 No DMA: entry not valid, configured to abort, or illegal.
 */
#define ViommuKeyKind_ABORT 0
/*
 DMA untranslated by the guest: stage 2 only.
 */
#define ViommuKeyKind_BYPASS 1
/*
 Translated by the guest's tables, nested in stage 2.
 */
#define ViommuKeyKind_TRANSLATE 2

/*
 The canonical form of a guest table entry: equal keys share one nested HWPT.
 */
struct ViommuEntryKey {
  /*
   Abort, bypass or translate. Anything unknown counts as abort.
   */
  ViommuKeyKind kind;
  /*
   If the entry is illegal: the event number the guest's IOMMU records on use of it (Arm C_BAD_STE); else 0.
   */
  uint32_t event;
  /*
   For [`KeyKind::TRANSLATE`]: the guest's own number of the domain that its invalidations will name, at most 65535
   (AMD DomainID, VT-d DID). All of a guest's nested HWPTs with one number share a host tag, which no other guest
   has. [`NO_DOMAIN`] otherwise, and where the nesting parent's tag is all there is (Arm).
   */
  uint32_t domain;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   For [`KeyKind::TRANSLATE`]: the entry's allowed bits, every other bit zero. Zero otherwise.
   */
  uint64_t words[4];
};

/*
 [`crate::Hardware`] as it crosses the boundary.
 */
struct ViommuHardwareCalls {
  /*
   Bytes of this struct.
   */
  uint32_t size;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   Handed to every function.
   */
  void *ctx;
  /*
   Reads 4 or 8 bytes of the register frame; all ones if that failed.
   */
  uint64_t (*mmio_read)(void *ctx, uint64_t offset, uint32_t size);
  /*
   Writes 4 or 8 bytes of the register frame.
   */
  void (*mmio_write)(void *ctx, uint64_t offset, uint32_t size, uint64_t value);
  /*
   Reads host memory.
   */
  int64_t (*read)(void *ctx, uint64_t pa, uint8_t *bytes, size_t len);
  /*
   Writes host memory.
   */
  int64_t (*write)(void *ctx, uint64_t pa, const uint8_t *bytes, size_t len);
  /*
   Allocates zeroed DMA memory.
   */
  int64_t (*alloc)(void *ctx, uint64_t len, uint64_t align, uint64_t *pa, struct ViommuMessage *why);
  /*
   Frees it.
   */
  void (*free)(void *ctx, uint64_t pa, uint64_t len);
  /*
   Puts commands and a SYNC on the physical queue and waits for them.
   */
  int64_t (*issue)(void *ctx, const uint64_t *commands, size_t words, struct ViommuMessage *why);
};

/*
 Geometry of the physical command ring. Indices run on without bound; the register holds them as below.
 */
struct ViommuRingGeometry {
  /*
   Host physical address of entry 0.
   */
  uint64_t base;
  /*
   log2 of the size in commands.
   */
  uint32_t log2_commands;
  /*
   Words of 8 bytes a command.
   */
  uint32_t command_words;
  /*
   Register that takes the producer index (a 4-byte write is the doorbell).
   */
  uint64_t producer;
  /*
   Register that shows the consumer index.
   */
  uint64_t consumer;
  /*
   Bits of the consumer register that are not index; the index field starts at bit `index_shift`.
   */
  uint32_t index_shift;
  /*
   1 if the index field has one bit more than needed (the wrap bit), else 0.
   */
  uint32_t wrap_bit;
  /*
   Bits of the consumer register that, when not zero, may mean that the queue stopped:
   [`Driver::queue_fault`] tells.
   */
  uint32_t error_mask;
  /*
   Register that also tells of a stopped queue, read while waiting; 0 if `error_mask` is enough.
   */
  uint32_t error_register;
  /*
   Bits of `error_register` that, when not zero, may mean that the queue stopped.
   */
  uint32_t error_bits;
  /*
   Bits of `error_register` that are not zero as long as the queue runs.
   */
  uint32_t running_bits;
};

/*
 What the physical IOMMU offers.
 */
struct ViommuDriverInfo {
  /*
   The command ring.
   */
  struct ViommuRingGeometry ring;
  /*
   First usable tag.
   */
  uint32_t first_tag;
  /*
   Last usable tag (VMID 255 or 65535 on Arm).
   */
  uint32_t last_tag;
  /*
   Streams `0..streams` can be programmed.
   */
  uint32_t streams;
  /*
   log2 of the smallest stage-2 page.
   */
  uint32_t page_log2;
  /*
   Log2 of the largest input address of stage 2, in bits.
   */
  uint32_t ipa_bits;
  /*
   1 if the IOMMU can serve device caches (ATS).
   */
  uint32_t ats;
  /*
   How guests can be served here: [`TranslationMode::bit`] of each mode.
   */
  uint32_t modes;
};

/*
 How a guest's page tables reach the hardware.
 */
typedef uint32_t ViommuTranslationMode;
/*
 The hardware walks them itself, nested in stage 2.
 */
#define ViommuTranslationMode_NESTED 0
/*
 The hardware walks a copy that the host composes with stage 2, at each invalidation of the guest. Needs a guest
 that invalidates what it maps too (AMD NpCache, VT-d Caching Mode).
 */
#define ViommuTranslationMode_SHADOW 1

/*
 What a host-side invalidation is about.
 */
typedef uint32_t ViommuScope;
/*
 Wait for everything before (a SYNC).
 */
#define ViommuScope_SYNC 0
/*
 All stage-1 translations of `tag` (Arm TLBI_NH_ALL).
 */
#define ViommuScope_STAGE1_ALL 1
/*
 Stage-2 translations of `tag` for `address..address+length` (Arm TLBI_S2_IPA).
 */
#define ViommuScope_STAGE2_RANGE 2
/*
 All translations of `tag`, both stages (Arm TLBI_S12_VMALL).
 */
#define ViommuScope_TAG 3
/*
 Everything in the device cache of `stream` (Arm ATC_INV size 52).
 */
#define ViommuScope_DEVICE_CACHE 4
/*
 What is cached of the configuration of `stream`: its table entry and everything found through it (Arm CFGI_STE).
 No words if this IOMMU caches nothing of the kind.
 */
#define ViommuScope_CONFIGURATION 5

/*
 One host-side invalidation.
 */
struct ViommuHostInvalidation {
  /*
   What it is about.
   */
  ViommuScope scope;
  /*
   The tag, where the scope has one.
   */
  uint32_t tag;
  /*
   The stream, where the scope has one.
   */
  uint32_t stream;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   First byte, where the scope has a range.
   */
  uint64_t address;
  /*
   Length in bytes, where the scope has a range.
   */
  uint64_t length;
};

/*
 Why a physical queue stopped.
 */
typedef uint32_t ViommuQueueFaultKind;
/*
 The command at the index is illegal. Replace it by a SYNC, then resume.
 */
#define ViommuQueueFaultKind_ILLEGAL 1
/*
 The queue's memory could not be read. Resume retries.
 */
#define ViommuQueueFaultKind_FETCH 2
/*
 A device cache invalidation before the SYNC at the index timed out. Resume goes on after it.
 */
#define ViommuQueueFaultKind_ATC_TIMEOUT 3

/*
 A stopped physical queue.
 */
struct ViommuQueueFault {
  /*
   Why.
   */
  ViommuQueueFaultKind kind;
  /*
   The consumer register's index field (with wrap bit) at which it stopped.
   */
  uint32_t index;
};

/*
 Whose affair a hardware event is.
 */
typedef uint32_t ViommuEventOwner;
/*
 The guest whose device it names: goes to its event queue with the guest's ID.
 */
#define ViommuEventOwner_GUEST 0
/*
 The host (a stage-2 fault, a bad physical table): logged and counted, no guest sees it.
 */
#define ViommuEventOwner_HOST 1
/*
 Records were lost in the hardware's queue before this point; it names no stream.
 */
#define ViommuEventOwner_LOST 2
/*
 The guest of the virtual interface whose handle is in [`HostEvent::stream`]: something about the queues that it
 drives itself. Goes to its frontend with [`crate::NO_STREAM`] as the guest's ID.
 */
#define ViommuEventOwner_INTERFACE 3

/*
 One record of the physical event queue.
 */
struct ViommuHostEvent {
  /*
   Guest's or host's.
   */
  ViommuEventOwner owner;
  /*
   Host stream it names, or the virtual interface.
   */
  uint32_t stream;
  /*
   The vendor's event number.
   */
  uint32_t code;
  /*
   Words of `record` used.
   */
  uint32_t words;
  /*
   The record as hardware wrote it, with the stream's field zero.
   */
  uint64_t record[8];
};

/*
 [`crate::ModelHost`] as it crosses the boundary.
 */
struct ViommuModelHostCalls {
  /*
   Bytes of this struct.
   */
  uint32_t size;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   Handed to every function.
   */
  void *ctx;
  /*
   Reads physical memory.
   */
  int64_t (*read)(void *ctx, uint64_t pa, uint8_t *bytes, size_t len);
  /*
   Writes physical memory.
   */
  int64_t (*write)(void *ctx, uint64_t pa, const uint8_t *bytes, size_t len);
  /*
   Pulses a wired interrupt line.
   */
  void (*irq)(void *ctx, uint32_t line);
};

/*
 [`crate::ModelConfig`] as it crosses the boundary.
 */
struct ViommuModelSetup {
  /*
   Bytes of this struct.
   */
  uint32_t size;
  /*
   1 if devices have a cache of their own (ATC), else 0.
   */
  uint32_t atc;
  /*
   TLB entries kept per tag; 0 for the model's own.
   */
  uint32_t tlb_capacity;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   ID registers.
   */
  const struct ViommuRegister *registers;
  /*
   Entries of `registers`.
   */
  size_t register_count;
};

/*
 A device's request.
 */
struct ViommuRequest {
  /*
   Stream (StreamID, DeviceID, source-id).
   */
  uint32_t stream;
  /*
   PASID / SubstreamID, `u32::MAX` for none.
   */
  uint32_t pasid;
  /*
   Address the device put on the bus.
   */
  uint64_t iova;
  /*
   Access: 0 none (only asks), 1 read, 2 write.
   */
  uint32_t access;
  /*
   Bit 0: speculative (fills caches, records no event, counts no hit or miss, caches no fault).
   */
  uint32_t flags;
};
/*
 `flags` bit: speculative.
 */
#define ViommuRequest_SPECULATIVE 1

/*
 Outcome of a translation. The numbers are those of the trace format.
 */
typedef uint32_t ViommuStatus;
/*
 Translated.
 */
#define ViommuStatus_OK 0
/*
 Refused with a fault.
 */
#define ViommuStatus_FAULT 1
/*
 The stream is configured for identity.
 */
#define ViommuStatus_BYPASS 2
/*
 The stream is configured to abort; no event.
 */
#define ViommuStatus_ABORT 3
/*
 Translation is not enabled: identity.
 */
#define ViommuStatus_DISABLED 4

/*
 The answer to a [`Request`].
 */
struct ViommuAnswer {
  /*
   What happened.
   */
  ViommuStatus status;
  /*
   Deciding stage of an OK or FAULT: 1, 2; 0 if neither.
   */
  uint32_t stage;
  /*
   Output address (OK, BYPASS, DISABLED).
   */
  uint64_t output;
  /*
   For a stage-2 fault: the intermediate address that has no mapping. Else 0.
   */
  uint64_t ipa;
  /*
   Permissions granted: bit 0 read, bit 1 write.
   */
  uint32_t permissions;
  /*
   Vendor's fault code (Arm event number).
   */
  uint32_t fault;
  /*
   log2 of the size of the translation that answered.
   */
  uint32_t leaf_log2;
  /*
   Bit 0: answered from the TLB. Bit 1: answered from the device's ATC.
   */
  uint32_t flags;
};

/*
 Counters of a model's caches. Lookups of streams that translate in stage 1 are hits or misses; lookups of streams
 that only have stage 2 count in `stage2_hits`/`stage2_misses`; speculative ones nowhere.
 */
struct ViommuCacheStats {
  /*
   TLB hits.
   */
  uint64_t hits;
  /*
   TLB misses.
   */
  uint64_t misses;
  /*
   Entries thrown out for lack of room.
   */
  uint64_t evictions;
  /*
   Hits of stage-2-only streams.
   */
  uint64_t stage2_hits;
  /*
   Misses of stage-2-only streams.
   */
  uint64_t stage2_misses;
  /*
   Lookups answered by a device's own cache.
   */
  uint64_t atc_hits;
  /*
   Lookups that a device's own cache could not answer.
   */
  uint64_t atc_misses;
};

/*
 Which translations a command at which a rewrite stopped with [`Stop::SHADOW`] says have changed.
 */
struct ViommuShadowRange {
  /*
   The guest's own number of the domain; not looked at with `all_domains`.
   */
  uint32_t domain;
  /*
   1 if it is about every domain.
   */
  uint32_t all_domains;
  /*
   First input address.
   */
  uint64_t first;
  /*
   Last input address, inclusive.
   */
  uint64_t last;
};

/*
 One leaf of a guest's page table.
 */
struct ViommuGuestMapping {
  /*
   First input address.
   */
  uint64_t iova;
  /*
   First guest physical address.
   */
  uint64_t gpa;
  /*
   Bytes, a power of two to which `iova` is aligned.
   */
  uint64_t length;
  /*
   Bit 0: read, bit 1: write; both from all levels together.
   */
  uint32_t permissions;
  /*
   Zero.
   */
  uint32_t reserved;
};

/*
 How far a walk of a guest's page table got.
 */
struct ViommuWalked {
  /*
   Leaves written.
   */
  uint32_t written;
  /*
   1 if there is nothing left up to the last address.
   */
  uint32_t done;
  /*
   Where to go on if not: beyond every leaf written, and beyond the first address given.
   */
  uint64_t next;
};

/*
 What a queue is for.
 */
typedef uint32_t ViommuHwQueueKind;
/*
 Commands of the guest.
 */
#define ViommuHwQueueKind_COMMAND 0
/*
 Events for the guest.
 */
#define ViommuHwQueueKind_EVENT 1
/*
 Page requests for the guest.
 */
#define ViommuHwQueueKind_PAGE_REQUEST 2

/*
 A queue in guest memory that hardware is to use itself.
 */
struct ViommuHwQueueRequest {
  /*
   What it is for.
   */
  ViommuHwQueueKind kind;
  /*
   Its number among those of its kind, from 0.
   */
  uint32_t index;
  /*
   Guest physical address of its first entry.
   */
  uint64_t iova;
  /*
   Bytes.
   */
  uint64_t length;
};

/*
 A part of the physical IOMMU that belongs to one guest.
 */
struct ViommuVirtualInterface {
  /*
   The driver's number for it.
   */
  uint32_t handle;
  /*
   See [`VirtualInterface::PHYSICAL_QUEUES`].
   */
  uint32_t flags;
  /*
   Where the registers are that the guest may touch directly: offset in the hardware's register frame.
   */
  uint64_t page;
  /*
   Bytes of them; 0 if there are none.
   */
  uint64_t page_length;
  /*
   Where the guest expects them: offset in the register frame that it sees.
   */
  uint64_t guest_page;
};
/*
 `flags`: hardware reads the queues by physical address, so each must be contiguous there. Without, it translates
 their addresses itself.
 */
#define ViommuVirtualInterface_PHYSICAL_QUEUES 1

/*
 The object that an HWPT_INVALIDATE names.
 */
typedef uint32_t ViommuInvalidateTarget;
/*
 The guest's vIOMMU.
 */
#define ViommuInvalidateTarget_VIOMMU 0
/*
 The nested HWPTs of the domain that [`KernelEntries::domain`] says; all of the guest's for [`NO_DOMAIN`].
 */
#define ViommuInvalidateTarget_NESTED_HWPT 1

/*
 How the kernel nests a guest's tables.
 */
typedef uint32_t ViommuNesting;
/*
 Through a vIOMMU: VIOMMU_ALLOC on a nesting parent, HWPT_ALLOC on the vIOMMU.
 */
#define ViommuNesting_VIOMMU 0
/*
 On the parent: HWPT_ALLOC on a nesting parent. There is no vIOMMU, and so no vdevice and no event queue.
 */
#define ViommuNesting_PARENT 1
/*
 Not at all: guests are served with shadow tables.
 */
#define ViommuNesting_NONE 2

/*
 The types and sizes of a vendor's payloads. A type is the uAPI's number; sizes are in bytes.
 */
struct ViommuKernelFacts {
  /*
   GET_HW_INFO type.
   */
  uint32_t hw_info_type;
  /*
   Bytes of that payload.
   */
  uint32_t hw_info_bytes;
  /*
   A second GET_HW_INFO type, whose payload follows the first; 0 if there is none. A kernel without it: zeros.
   */
  uint32_t hw_info_more_type;
  /*
   Bytes of the second payload.
   */
  uint32_t hw_info_more_bytes;
  /*
   VIOMMU_ALLOC type; 0 if there is none.
   */
  uint32_t viommu_type;
  /*
   Bytes of the data of VIOMMU_ALLOC, all zero going in; 0 if it takes none.
   */
  uint32_t viommu_data_bytes;
  /*
   HWPT_ALLOC data type of a nested HWPT; 0 if there is none.
   */
  uint32_t hwpt_data_type;
  /*
   Bytes of that payload.
   */
  uint32_t hwpt_data_bytes;
  /*
   HWPT_INVALIDATE data type. 0 is one.
   */
  uint32_t invalidate_data_type;
  /*
   Bytes of the longest invalidation entry; 0 if there is none.
   */
  uint32_t invalidate_entry_bytes;
  /*
   What most invalidations name; [`KernelEntries::target`] says it of each.
   */
  ViommuInvalidateTarget invalidate_target;
  /*
   How guests are nested.
   */
  ViommuNesting nesting;
  /*
   VEVENTQ_ALLOC type of the events of a guest's streams; 0 if there is none.
   */
  uint32_t veventq_type;
  /*
   Bytes of an event's payload, behind the header.
   */
  uint32_t vevent_bytes;
  /*
   VEVENTQ_ALLOC type of events without a stream (queues that guests drive themselves); 0 if there is none.
   */
  uint32_t interface_veventq_type;
  /*
   Bytes of such an event's payload, behind the header.
   */
  uint32_t interface_vevent_bytes;
  /*
   HW_QUEUE_ALLOC type; 0 if there is none.
   */
  uint32_t hw_queue_type;
  /*
   Zero.
   */
  uint32_t reserved;
};

/*
 What became of a run of commands.
 */
struct ViommuKernelEntries {
  /*
   Words taken, whole commands from the first. What the kernel does by itself is taken and leaves no entry.
   */
  uint32_t taken;
  /*
   Bytes written, whole entries.
   */
  uint32_t written;
  /*
   What the entries are to be sent to.
   */
  ViommuInvalidateTarget target;
  /*
   Bytes of an entry (`entry_len`).
   */
  uint32_t entry_bytes;
  /*
   The guest's own number of the domain that the entries are about; [`NO_DOMAIN`] if they name none.
   */
  uint32_t domain;
  /*
   1 if the next command is none that this kernel interface has; else, with words left, there was no room, or the next
   needs another target or domain: call again.
   */
  uint32_t refused;
};

/*
 An event as [`crate::Frontend::event`] takes it.
 */
struct ViommuKernelEvent {
  /*
   The guest's ID of the device; [`NO_STREAM`] if it is about none.
   */
  uint32_t virt_id;
  /*
   Words used in `record`.
   */
  uint32_t words;
  /*
   The record.
   */
  uint64_t record[8];
};

/*
 The type of the symbol `viommu_plugin_entry`.

 A part whose `*_create` is null is not offered; of a part that is offered every slot up to `model_reset` must be there.
 */
struct ViommuPluginEntry {
  /*
   Bytes of this struct as the plugin knows it.
   */
  uint32_t size;
  /*
   [`super::ABI_MAJOR`] the plugin was built with.
   */
  uint32_t abi_major;
  /*
   [`super::ABI_MINOR`] the plugin was built with.
   */
  uint32_t abi_minor;
  /*
   Code of the vendor's recordings.
   */
  uint32_t vendor;
  /*
   The plugin's name.
   */
  struct ViommuText name;
  /*
   The plugin's own version.
   */
  struct ViommuText version;
  /*
   What the vendor calls a guest's stream ID.
   */
  struct ViommuText stream_name;
  /*
   Words of 8 bytes a command, at most.
   */
  uint32_t command_words;
  /*
   Words of a guest table entry.
   */
  uint32_t entry_words;
  /*
   Words of an event record.
   */
  uint32_t event_words;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   Bytes of the register frame.
   */
  uint64_t frame_bytes;
  /*
   `[any-thread]` A table beyond this one by its name with version, "viommu.hw-queue/1"; null if not offered.
   */
  const void *(*extension)(struct ViommuText name);
  /*
   `[control-thread]` See [`crate::Vendor::frontend`]; a refusal is an errno with its text in `why`.
   */
  int64_t (*frontend_create)(const struct ViommuRegister *registers,
                             size_t register_count,
                             void **instance,
                             struct ViommuMessage *why);
  /*
   `[control-thread]` Frees the instance.
   */
  int64_t (*frontend_destroy)(void *instance);
  /*
   `[guest-thread]` See [`crate::Frontend::read`].
   */
  int64_t (*frontend_read)(void *instance, uint64_t offset, uint32_t size, uint64_t *value);
  /*
   `[guest-thread]` See [`crate::Frontend::write`].
   */
  int64_t (*frontend_write)(void *instance,
                            uint64_t offset,
                            uint32_t size,
                            uint64_t value,
                            struct ViommuEffects *effects);
  /*
   `[guest-thread]` See [`crate::Frontend::queue`].
   */
  int64_t (*frontend_queue)(void *instance, struct ViommuGuestQueue *queue);
  /*
   `[guest-thread]` See [`crate::Frontend::advance`].
   */
  int64_t (*frontend_advance)(void *instance, uint32_t commands);
  /*
   `[guest-thread]` See [`crate::Frontend::fault`].
   */
  int64_t (*frontend_fault)(void *instance, ViommuGuestFault fault, struct ViommuEffects *effects);
  /*
   `[guest-thread]` See [`crate::Frontend::sync_done`].
   */
  int64_t (*frontend_sync_done)(void *instance, const uint64_t *command, size_t words, struct ViommuEffects *effects);
  /*
   `[guest-thread]` See [`crate::Frontend::event`].
   */
  int64_t (*frontend_event)(void *instance,
                            uint32_t virt_id,
                            const uint64_t *record,
                            size_t words,
                            struct ViommuEffects *effects);
  /*
   `[guest-thread]` See [`crate::Frontend::event_lost`].
   */
  int64_t (*frontend_event_lost)(void *instance, struct ViommuEffects *effects);
  /*
   `[guest-thread]` See [`crate::Frontend::mode`].
   */
  int64_t (*frontend_mode)(void *instance, ViommuMode *mode);
  /*
   `[control-thread]` See [`crate::Frontend::entry`].
   */
  int64_t (*frontend_entry)(void *instance,
                            const struct ViommuGuestMemoryCalls *memory,
                            uint32_t virt_id,
                            uint64_t *entry,
                            size_t words,
                            ViommuLookup *lookup);
  /*
   `[guest-thread]` See [`crate::Frontend::reset`].
   */
  int64_t (*frontend_reset)(void *instance);
  /*
   `[control-thread]` See [`crate::Frontend::register_name`].
   */
  int64_t (*frontend_register_name)(void *instance, uint64_t offset, struct ViommuText *name);
  /*
   `[control-thread]` See [`crate::Frontend::trouble`].
   */
  int64_t (*frontend_trouble)(void *instance, struct ViommuMessage *text);
  /*
   `[control-thread]` See [`crate::Vendor::codec`].
   */
  int64_t (*codec_create)(const struct ViommuRegister *registers,
                          size_t register_count,
                          void **instance,
                          struct ViommuMessage *why);
  /*
   `[control-thread]` Frees the instance.
   */
  int64_t (*codec_destroy)(void *instance);
  /*
   `[any-thread]` See [`crate::Codec::rewrite`]. Does not wait or allocate.
   */
  int64_t (*codec_rewrite)(void *instance,
                           const uint64_t *guest,
                           size_t guest_words,
                           ViommuClasses before,
                           const struct ViommuHostIdTable *ids,
                           uint64_t *out,
                           size_t out_words,
                           struct ViommuRewritten *rewritten);
  /*
   `[any-thread]` See [`crate::Codec::configuration`].
   */
  int64_t (*codec_configuration)(void *instance,
                                 const uint64_t *command,
                                 size_t words,
                                 struct ViommuConfiguration *scope);
  /*
   `[any-thread]` See [`crate::Codec::entry_key`].
   */
  int64_t (*codec_entry_key)(void *instance, const uint64_t *entry, size_t words, struct ViommuEntryKey *key);
  /*
   `[any-thread]` See [`crate::Codec::opcode`]; it is the value returned.
   */
  int64_t (*codec_opcode)(void *instance, const uint64_t *command, size_t words);
  /*
   `[any-thread]` See [`crate::Codec::opcode_name`].
   */
  int64_t (*codec_opcode_name)(void *instance, uint8_t opcode, struct ViommuText *name);
  /*
   `[any-thread]` See [`crate::Codec::describe`].
   */
  int64_t (*codec_describe)(void *instance, const uint64_t *command, size_t words, struct ViommuMessage *text);
  /*
   `[control-thread]` See [`crate::Vendor::driver`]. `hardware` is copied; its `ctx` lives until destroy returns.
   */
  int64_t (*driver_create)(const struct ViommuHardwareCalls *hardware, void **instance, struct ViommuMessage *why);
  /*
   `[control-thread]` Frees the instance.
   */
  int64_t (*driver_destroy)(void *instance);
  /*
   `[control-thread]` See [`crate::Driver::info`].
   */
  int64_t (*driver_info)(void *instance, struct ViommuDriverInfo *info);
  /*
   `[control-thread]` See [`crate::Driver::guest_registers`]: writes the first `room`, returns how many there are.
   */
  int64_t (*driver_guest_registers)(void *instance,
                                    ViommuTranslationMode mode,
                                    struct ViommuRegister *registers,
                                    size_t room);
  /*
   `[control-thread]` See [`crate::Driver::stage2_create`].
   */
  int64_t (*driver_stage2_create)(void *instance, uint32_t tag, uint32_t *stage2, struct ViommuMessage *why);
  /*
   `[control-thread & attached]` See [`crate::Driver::stage2_map`].
   */
  int64_t (*driver_stage2_map)(void *instance,
                               uint32_t stage2,
                               uint64_t ipa,
                               uint64_t pa,
                               uint64_t len,
                               uint32_t access,
                               struct ViommuMessage *why);
  /*
   `[control-thread & attached]` See [`crate::Driver::stage2_unmap`].
   */
  int64_t (*driver_stage2_unmap)(void *instance, uint32_t stage2, uint64_t ipa, uint64_t len, struct ViommuMessage *why);
  /*
   `[control-thread & attached]` See [`crate::Driver::stage2_destroy`].
   */
  int64_t (*driver_stage2_destroy)(void *instance, uint32_t stage2);
  /*
   `[control-thread & attached]` See [`crate::Driver::attach`].
   */
  int64_t (*driver_attach)(void *instance,
                           uint32_t stream,
                           uint32_t stage2,
                           uint32_t tag,
                           const struct ViommuEntryKey *key,
                           struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::detach`].
   */
  int64_t (*driver_detach)(void *instance, uint32_t stream, struct ViommuMessage *why);
  /*
   `[guest-thread]` See [`crate::Driver::encode`]; the words written are the value returned.
   */
  int64_t (*driver_encode)(void *instance, const struct ViommuHostInvalidation *what, uint64_t *out, size_t out_words);
  /*
   `[guest-thread]` See [`crate::Driver::queue_fault`]: 1 if it stopped, else 0.
   */
  int64_t (*driver_queue_fault)(void *instance, struct ViommuQueueFault *fault);
  /*
   `[guest-thread]` See [`crate::Driver::queue_resume`].
   */
  int64_t (*driver_queue_resume)(void *instance);
  /*
   `[control-thread]` See [`crate::Driver::event`]: 1 if there was one, else 0.
   */
  int64_t (*driver_event)(void *instance, struct ViommuHostEvent *event);
  /*
   `[control-thread]` See [`crate::Vendor::model`]. `host` is copied; its `ctx` lives until destroy returns.
   */
  int64_t (*model_create)(const struct ViommuModelHostCalls *host,
                          const struct ViommuModelSetup *setup,
                          void **instance,
                          struct ViommuMessage *why);
  /*
   `[control-thread]` Frees the instance.
   */
  int64_t (*model_destroy)(void *instance);
  /*
   `[model-thread]` See [`crate::Model::mmio_read`].
   */
  int64_t (*model_mmio_read)(void *instance, uint64_t offset, uint32_t size, uint64_t *value);
  /*
   `[model-thread]` See [`crate::Model::mmio_write`].
   */
  int64_t (*model_mmio_write)(void *instance, uint64_t offset, uint32_t size, uint64_t value);
  /*
   `[model-thread]` See [`crate::Model::step`]; the commands consumed are the value returned.
   */
  int64_t (*model_step)(void *instance, uint32_t budget);
  /*
   `[model-thread]` See [`crate::Model::translate`]; the requests answered are the value returned.
   */
  int64_t (*model_translate)(void *instance,
                             const struct ViommuRequest *requests,
                             size_t request_count,
                             struct ViommuAnswer *answers,
                             size_t answer_room);
  /*
   `[model-thread]` See [`crate::Model::explain`].
   */
  int64_t (*model_explain)(void *instance, const struct ViommuRequest *request, struct ViommuMessage *text);
  /*
   `[model-thread]` See [`crate::Model::stats`].
   */
  int64_t (*model_stats)(void *instance, struct ViommuCacheStats *stats);
  /*
   `[model-thread]` See [`crate::Model::atc_unresponsive`]; `unresponsive` is 0 or 1.
   */
  int64_t (*model_atc_unresponsive)(void *instance, uint32_t stream, uint32_t unresponsive);
  /*
   `[model-thread]` See [`crate::Model::reset`].
   */
  int64_t (*model_reset)(void *instance);
  /*
   `[control-thread]` See [`crate::Frontend::save`]: writes the first `room` bytes, returns how many there are. Null,
   as the two after it, if guests of this plugin cannot be moved.
   */
  int64_t (*frontend_save)(void *instance, uint8_t *bytes, size_t room);
  /*
   `[control-thread]` See [`crate::Frontend::restore`].
   */
  int64_t (*frontend_restore)(void *instance, const uint8_t *bytes, size_t len, struct ViommuMessage *why);
  /*
   `[any-thread]` See [`crate::Vendor::covers`]. Needs no instance.
   */
  int64_t (*frontend_covers)(const struct ViommuRegister *offered,
                             size_t offered_count,
                             const struct ViommuRegister *shown,
                             size_t shown_count,
                             struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Frontend::watched`]; the pages written are the value returned. Null: none.
   */
  int64_t (*frontend_watched)(void *instance,
                              const struct ViommuGuestMemoryCalls *memory,
                              const uint32_t *streams,
                              size_t stream_count,
                              uint32_t from,
                              uint64_t *pages,
                              size_t room);
  /*
   `[any-thread]` See [`crate::Codec::mode`]; it is the value returned. Null: nested.
   */
  int64_t (*codec_mode)(void *instance);
  /*
   `[any-thread]` See [`crate::Codec::shadow_range`]. Null, as the next, if no guest is served in shadow mode.
   */
  int64_t (*codec_shadow_range)(void *instance, const uint64_t *command, size_t words, struct ViommuShadowRange *range);
  /*
   `[any-thread]` See [`crate::Codec::walk`].
   */
  int64_t (*codec_walk)(void *instance,
                        const struct ViommuEntryKey *key,
                        const struct ViommuGuestMemoryCalls *memory,
                        uint64_t first,
                        uint64_t last,
                        struct ViommuGuestMapping *mappings,
                        size_t room,
                        struct ViommuWalked *walked);
  /*
   `[guest-thread]` See [`crate::Frontend::hw_queues`]: writes the first `room`, returns how many there are. From ABI
   2.1 on, as all after it; null: none.
   */
  int64_t (*frontend_hw_queues)(void *instance, struct ViommuHwQueueRequest *queues, size_t room);
  /*
   `[control-thread]` See [`crate::Driver::interrupt`].
   */
  int64_t (*driver_interrupt)(void *instance, uint32_t line);
  /*
   `[control-thread & attached]` See [`crate::Driver::interface_create`]. Null, as the six after it, if there are no
   virtual interfaces.
   */
  int64_t (*driver_interface_create)(void *instance,
                                     uint32_t stage2,
                                     struct ViommuVirtualInterface *interface,
                                     struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::interface_destroy`].
   */
  int64_t (*driver_interface_destroy)(void *instance, uint32_t interface, struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::interface_stream_set`].
   */
  int64_t (*driver_interface_stream_set)(void *instance,
                                         uint32_t interface,
                                         uint32_t virt_id,
                                         uint32_t stream,
                                         struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::interface_stream_clear`].
   */
  int64_t (*driver_interface_stream_clear)(void *instance,
                                           uint32_t interface,
                                           uint32_t virt_id,
                                           struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::interface_domain_set`]. Null, as the next: guests' commands name no domains.
   */
  int64_t (*driver_interface_domain_set)(void *instance,
                                         uint32_t interface,
                                         uint32_t domain,
                                         uint32_t tag,
                                         struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::interface_domain_clear`].
   */
  int64_t (*driver_interface_domain_clear)(void *instance,
                                           uint32_t interface,
                                           uint32_t domain,
                                           struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::hw_queue_create`].
   */
  int64_t (*driver_hw_queue_create)(void *instance,
                                    uint32_t interface,
                                    const struct ViommuHwQueueRequest *queue,
                                    uint64_t pa,
                                    uint32_t *handle,
                                    struct ViommuMessage *why);
  /*
   `[control-thread]` See [`crate::Driver::hw_queue_destroy`].
   */
  int64_t (*driver_hw_queue_destroy)(void *instance, uint32_t queue, struct ViommuMessage *why);
  /*
   `[any-thread]` See [`crate::Codec::traits`]; it is the value returned. From ABI 2.2 on; null:
   [`crate::GuestTraits::INTERFACE`].
   */
  int64_t (*codec_traits)(void *instance);
  /*
   `[any-thread]` See [`crate::KernelAbi::facts`]. From ABI 2.3 on, as all after it. None of these needs an instance; null,
   as the six after it, if this vendor's guests cannot be served on `/dev/iommu`.
   */
  int64_t (*kernel_facts)(struct ViommuKernelFacts *facts);
  /*
   `[any-thread]` See [`crate::KernelAbi::registers`]: writes the first `room`, returns how many there are.
   */
  int64_t (*kernel_registers)(const uint8_t *hw_info,
                              size_t len,
                              uint64_t capabilities,
                              ViommuTranslationMode mode,
                              struct ViommuRegister *registers,
                              size_t room,
                              struct ViommuMessage *why);
  /*
   `[any-thread]` See [`crate::KernelAbi::hwpt_data`]; the bytes written are the value returned.
   */
  int64_t (*kernel_hwpt_data)(const struct ViommuEntryKey *key, uint8_t *data, size_t room);
  /*
   `[any-thread]` See [`crate::KernelAbi::entries`].
   */
  int64_t (*kernel_entries)(const uint64_t *commands,
                            size_t words,
                            uint8_t *entries,
                            size_t room,
                            struct ViommuKernelEntries *answer);
  /*
   `[any-thread]` See [`crate::KernelAbi::repeatable`]: 1 or 0.
   */
  int64_t (*kernel_repeatable)(const uint64_t *command, size_t words);
  /*
   `[any-thread]` See [`crate::KernelAbi::event`]: 1 if it is one, else 0.
   */
  int64_t (*kernel_event)(uint32_t veventq_type, const uint8_t *payload, size_t len, struct ViommuKernelEvent *event);
  /*
   `[any-thread]` See [`crate::KernelAbi::interface`]: 1 if there is one, else 0.
   */
  int64_t (*kernel_interface)(const uint8_t *viommu_data, size_t len, struct ViommuVirtualInterface *interface);
  /*
   `[any-thread]` See [`crate::KernelAbi::forget`]; the words written are the value returned. Null: none.
   */
  int64_t (*kernel_forget)(const struct ViommuHostInvalidation *what, uint64_t *commands, size_t room);
};

/*
 How the framework treats a guest beside its [`TranslationMode`]; a bit set.
 */
typedef uint32_t ViommuGuestTraits;
/*
 It is given a virtual interface ([`crate::Driver::interface_create`]), if the hardware has one.
 */
#define ViommuGuestTraits_INTERFACE 1
/*
 No command of it comes by that would announce a changed table entry: a write to a page of
 [`crate::Frontend::watched`] counts as the announcement of all entries in it.
 */
#define ViommuGuestTraits_WRITES_CONFIGURE 2

#endif  /* VIOMMU_PLUGIN_H */

extern const struct ViommuPluginEntry viommu_plugin_entry;

//! Programs the mock's hardware.

use crate::behaviour::Behaviour;
use crate::spec::{self, opcode};
use std::collections::HashMap;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, EventOwner, Hardware, HostEvent, HostInvalidation, KeyKind, QueueFault,
    QueueFaultKind, Refusal, Register, RingGeometry, Scope, TranslationMode, Unreadable,
};

const STREAMS_LOG2: u32 = 8;
const RING_LOG2: u32 = 8;
const EVENTS_LOG2: u32 = 4;

/// The mock's driver.
pub struct MockDriver {
    hardware: Box<dyn Hardware>,
    behaviour: Behaviour,
    table: u64,
    ring: u64,
    events: u64,
    /// Stage 2 by handle: address of its ranges, tag.
    stages: HashMap<u32, (u64, u32)>,
    next: u32,
}

impl std::fmt::Debug for MockDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockDriver").field("stages", &self.stages).finish_non_exhaustive()
    }
}

fn not_memory(_: Unreadable) -> Refusal {
    Refusal::new(Refusal::EIO, "a table is not memory")
}

impl MockDriver {
    pub(crate) fn new(hardware: Box<dyn Hardware>, behaviour: Behaviour) -> Result<Self, Refusal> {
        if hardware.mmio_read(spec::ID, 4) != spec::ID_VALUE {
            return Err(Refusal::new(Refusal::EOPNOTSUPP, "this is not a mock IOMMU"));
        }
        let table = hardware.alloc((8 * spec::ENTRY_WORDS as u64) << STREAMS_LOG2, 0x1000)?;
        let ring = hardware.alloc((8 * spec::COMMAND_WORDS as u64) << RING_LOG2, 0x1000)?;
        let events = hardware.alloc((8 * spec::EVENT_WORDS as u64) << EVENTS_LOG2, 0x1000)?;
        hardware.mmio_write(spec::TABLE_BASE, 8, table | u64::from(STREAMS_LOG2));
        hardware.mmio_write(spec::QUEUE_BASE, 8, ring | u64::from(RING_LOG2));
        hardware.mmio_write(spec::EVENT_BASE, 8, events | u64::from(EVENTS_LOG2));
        hardware.mmio_write(spec::CONTROL, 8, spec::CONTROL_QUEUE | spec::CONTROL_TRANSLATE);
        Ok(Self { hardware, behaviour, table, ring, events, stages: HashMap::new(), next: 1 })
    }

    fn stage(&self, stage2: u32) -> Result<(u64, u32), Refusal> {
        let missing = || Refusal::new(Refusal::ENOENT, format!("no stage 2 has handle {stage2}"));
        self.stages.get(&stage2).copied().ok_or_else(missing)
    }

    fn range(&self, ranges: u64, index: u64) -> Result<[u64; 4], Refusal> {
        let mut bytes = [0; spec::RANGE_BYTES as usize];
        self.hardware.read(ranges + index * spec::RANGE_BYTES, &mut bytes).map_err(not_memory)?;
        Ok(std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * word + byte]))))
    }

    fn set(&self, place: u64, words: [u64; 4]) -> Result<(), Refusal> {
        self.hardware.write(place, words.map(u64::to_le_bytes).as_flattened()).map_err(not_memory)
    }

    fn set_entry(&self, stream: u32, entry: [u64; 4]) -> Result<(), Refusal> {
        if stream >= 1 << STREAMS_LOG2 {
            return Err(Refusal::new(Refusal::EINVAL, format!("stream {stream} is beyond the table")));
        }
        self.set(self.table + u64::from(stream) * 8 * spec::ENTRY_WORDS as u64, entry)?;
        self.hardware.issue(&[u64::from(opcode::CONFIG), u64::from(stream)])
    }
}

impl Driver for MockDriver {
    fn info(&self) -> DriverInfo {
        self.behaviour.enter("driver_info");
        let ring = RingGeometry {
            base: self.ring,
            log2_commands: RING_LOG2,
            command_words: spec::COMMAND_WORDS as u32,
            producer: spec::QUEUE_PROD,
            consumer: spec::QUEUE_CONS,
            index_shift: 0,
            wrap_bit: 1,
            error_mask: 0xff << spec::ERROR_SHIFT,
            error_register: 0,
            error_bits: 0,
            running_bits: 0,
        };
        let first_tag = if self.behaviour.lies("driver_info") { 256 } else { 1 };
        let page_log2 = spec::PAGE_LOG2;
        let (streams, modes) = (1 << STREAMS_LOG2, TranslationMode::NESTED.bit());
        DriverInfo { ring, first_tag, last_tag: 255, streams, page_log2, ipa_bits: 48, ats: 1, modes }
    }

    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        self.behaviour.enter("driver_guest_registers");
        if mode != TranslationMode::NESTED {
            return Vec::new();
        }
        let register = |offset, value| Register { offset, value };
        vec![register(spec::ID, spec::ID_VALUE), register(spec::FEATURES, spec::FEATURES_VALUE)]
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        self.behaviour.enter("driver_stage2_create");
        let ranges = self.hardware.alloc(spec::RANGES * spec::RANGE_BYTES, 0x1000)?;
        let handle = self.next;
        self.next += 1;
        self.stages.insert(handle, (ranges, tag));
        Ok(handle)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        self.behaviour.enter("driver_stage2_map");
        let (ranges, _) = self.stage(stage2)?;
        if access & 1 == 0 {
            return Err(Refusal::new(Refusal::EOPNOTSUPP, "a range of this hardware can always be read"));
        }
        let page = (1 << spec::PAGE_LOG2) - 1;
        let end = ipa.checked_add(len).filter(|end| *end <= 1 << 48 && len > 0 && (ipa | pa | len) & page == 0);
        let Some(end) = end else {
            return Err(Refusal::new(Refusal::EINVAL, format!("{ipa:#x}+{len:#x} cannot be mapped")));
        };
        let mut free = None;
        for index in 0..spec::RANGES {
            let [start, _, length, flags] = self.range(ranges, index)?;
            if flags & 1 == 0 {
                free = free.or(Some(index));
            } else if start < end && ipa < start + length {
                return Err(Refusal::new(Refusal::EEXIST, format!("{ipa:#x}+{len:#x} is mapped in part")));
            }
        }
        let index = free.ok_or_else(|| Refusal::new(Refusal::ENOSPC, "no range left in this stage 2"))?;
        self.set(ranges + index * spec::RANGE_BYTES, [ipa, pa, len, 1 | u64::from(access >> 1 & 1) << 1])
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        self.behaviour.enter("driver_stage2_unmap");
        let (ranges, _) = self.stage(stage2)?;
        for index in 0..spec::RANGES {
            let [start, _, length, flags] = self.range(ranges, index)?;
            if flags & 1 != 0 && (start, length) == (ipa, len) {
                return self.set(ranges + index * spec::RANGE_BYTES, [0; 4]);
            }
        }
        Err(Refusal::new(Refusal::ENOENT, format!("{ipa:#x}+{len:#x} is not one mapping")))
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        self.behaviour.enter("driver_stage2_destroy");
        if let Some((ranges, _)) = self.stages.remove(&stage2) {
            self.hardware.free(ranges, spec::RANGES * spec::RANGE_BYTES);
        }
    }

    fn attach(&mut self, stream: u32, stage2: u32, _tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        self.behaviour.enter("driver_attach");
        let (ranges, tag) = self.stage(stage2)?;
        let nested = spec::ENTRY_VALID | spec::ENTRY_STAGE2;
        let entry = match key.kind {
            KeyKind::TRANSLATE => [nested, key.words[1], ranges, tag.into()],
            KeyKind::BYPASS => [nested | spec::ENTRY_BYPASS, 0, ranges, tag.into()],
            _ => [0; 4],
        };
        self.set_entry(stream, entry)
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        self.behaviour.enter("driver_detach");
        self.set_entry(stream, [0; 4])
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        self.behaviour.enter("driver_encode");
        if self.behaviour.lies("driver_encode") {
            return out.len() + 1;
        }
        let tag = u64::from(what.tag) << spec::TAG_SHIFT;
        let all = u64::from(opcode::INVALIDATE_IOTLB) | spec::FLAG_ALL;
        let cache = |slot: u64| [u64::from(opcode::INVALIDATE_CACHE) | slot << spec::SLOT_SHIFT, what.stream.into()];
        let words: Vec<u64> = match what.scope {
            Scope::SYNC => vec![opcode::SYNC.into(), 0],
            Scope::DEVICE_CACHE => (0..spec::SLOTS).flat_map(cache).collect(),
            // Entries are read at every access.
            Scope::CONFIGURATION => Vec::new(),
            _ => vec![all | tag, 0],
        };
        let fits = if words.len() <= out.len() { words.len() } else { 0 };
        out[..fits].copy_from_slice(&words[..fits]);
        fits
    }

    fn queue_fault(&mut self) -> Option<QueueFault> {
        self.behaviour.enter("driver_queue_fault");
        let cons = self.hardware.mmio_read(spec::QUEUE_CONS, 4);
        let index = (cons & 0xff_ffff) as u32;
        let kind = match (cons >> spec::ERROR_SHIFT) as u32 {
            _ if self.behaviour.lies("driver_queue_fault") => QueueFaultKind(99),
            0 => return None,
            spec::ERROR_FETCH => QueueFaultKind::FETCH,
            spec::ERROR_TIMEOUT => QueueFaultKind::ATC_TIMEOUT,
            _ => QueueFaultKind::ILLEGAL,
        };
        Some(QueueFault { kind, index })
    }

    fn queue_resume(&mut self) {
        self.behaviour.enter("driver_queue_resume");
        self.hardware.mmio_write(spec::QUEUE_ACK, 4, 1);
    }

    fn event(&mut self) -> Option<HostEvent> {
        self.behaviour.enter("driver_event");
        if self.behaviour.lies("driver_event") {
            return Some(HostEvent { words: 99, ..HostEvent::default() });
        }
        let (prod, cons) = (self.hardware.mmio_read(spec::EVENT_PROD, 4), self.hardware.mmio_read(spec::EVENT_CONS, 4));
        let mask = (2 << EVENTS_LOG2) - 1;
        if prod & mask == cons & mask {
            return None;
        }
        let mut bytes = [0; 8 * spec::EVENT_WORDS];
        let place = self.events + (cons & (mask >> 1)) * bytes.len() as u64;
        let readable = self.hardware.read(place, &mut bytes).is_ok();
        self.hardware.mmio_write(spec::EVENT_CONS, 4, (cons + 1) & mask);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * at + byte]));
        let (stream, code) = (word(0) as u32, (word(0) >> 32) as u32);
        let owner = if readable && code != spec::EVENT_STAGE2 { EventOwner::GUEST } else { EventOwner::HOST };
        let mut event = HostEvent { owner, stream, code, words: spec::EVENT_WORDS as u32, record: [0; 8] };
        event.record[..2].copy_from_slice(&[word(0) & !0xffff_ffff, word(1)]);
        Some(event)
    }
}

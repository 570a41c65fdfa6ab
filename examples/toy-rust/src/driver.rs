//! Programs the physical toy IOMMU.

use crate::spec;
use std::collections::HashMap;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, EventOwner, Hardware, HostEvent, HostInvalidation, KeyKind, QueueFault,
    QueueFaultKind, Refusal, Register, RingGeometry, Scope, TranslationMode,
};

/// The physical IOMMU.
pub struct ToyDriver {
    hardware: Box<dyn Hardware>,
    features: u64,
    table: u64,
    queue: u64,
    events: u64,
    last_handle: u32,
    stages: HashMap<u32, Stage>,
}

#[derive(Clone, Copy)]
struct Stage {
    ranges: u64,
    tag: u32,
}

impl Stage {
    fn places(self) -> impl Iterator<Item = u64> {
        (0..spec::RANGES).map(move |index| self.ranges + index * spec::RANGE_BYTES)
    }
}

const TABLE_BYTES: u64 = spec::STREAMS as u64 * spec::ENTRY_BYTES;

fn refuse(errno: i32, text: &str) -> Refusal {
    Refusal::new(errno, text)
}

impl ToyDriver {
    pub(crate) fn new(hardware: Box<dyn Hardware>) -> Result<Self, Refusal> {
        if hardware.mmio_read(spec::ID, 8) != spec::ID_VALUE {
            return Err(refuse(Refusal::EOPNOTSUPP, "ID: this is no toy IOMMU"));
        }
        let features = hardware.mmio_read(spec::FEATURES, 8);
        if features & spec::STAGE2 == 0 {
            return Err(refuse(Refusal::EOPNOTSUPP, "FEATURES.STAGE2 = 0: this IOMMU cannot nest"));
        }
        // Zeroed memory is a table of entries that are not valid: every stream aborts.
        let table = hardware.alloc(TABLE_BYTES, spec::PAGE)?;
        let queue = hardware.alloc(spec::PAGE, spec::PAGE)?;
        let events = hardware.alloc(spec::PAGE, spec::PAGE)?;
        let on = spec::CONTROL_TRANSLATE | spec::CONTROL_QUEUE | spec::CONTROL_EVENTS;
        for (offset, value) in [(spec::TABLE, table), (spec::QUEUE, queue), (spec::EVENTS, events), (spec::CONTROL, on)]
        {
            hardware.mmio_write(offset, 8, value);
        }
        Ok(Self { hardware, features, table, queue, events, last_handle: 0, stages: HashMap::new() })
    }

    fn stage(&self, handle: u32) -> Result<Stage, Refusal> {
        self.stages.get(&handle).copied().ok_or_else(|| refuse(Refusal::ENOENT, "no stage 2 has this handle"))
    }

    fn load<const N: usize>(&self, pa: u64) -> Result<[u64; N], Refusal> {
        let mut bytes = [[0; 8]; N];
        let read = self.hardware.read(pa, bytes.as_flattened_mut());
        read.map_err(|_| refuse(Refusal::EIO, "a table is not memory"))?;
        Ok(spec::words(&bytes))
    }

    fn store(&self, pa: u64, words: [u64; 4]) -> Result<(), Refusal> {
        let written = self.hardware.write(pa, words.map(u64::to_le_bytes).as_flattened());
        written.map_err(|_| refuse(Refusal::EIO, "a table is not memory"))
    }

    /// Writes a table entry, which hardware reads whole, and says so.
    fn set_entry(&self, stream: u32, entry: [u64; 4]) -> Result<(), Refusal> {
        if stream >= spec::STREAMS {
            return Err(refuse(Refusal::EINVAL, "the stream is beyond the table"));
        }
        self.store(self.table + u64::from(stream) * spec::ENTRY_BYTES, entry)?;
        self.hardware.issue(&[u64::from(spec::CHANGED) | u64::from(stream) << spec::STREAM_SHIFT, 0])
    }
}

impl Drop for ToyDriver {
    fn drop(&mut self) {
        for stage in self.stages.values() {
            self.hardware.free(stage.ranges, spec::PAGE);
        }
        self.hardware.free(self.table, TABLE_BYTES);
        self.hardware.free(self.queue, spec::PAGE);
        self.hardware.free(self.events, spec::PAGE);
    }
}

impl Driver for ToyDriver {
    fn info(&self) -> DriverInfo {
        let ring = RingGeometry {
            base: self.queue,
            log2_commands: 8,
            command_words: spec::COMMAND_WORDS as u32,
            producer: spec::TAIL,
            consumer: spec::HEAD,
            error_mask: 0xff << spec::ERROR_SHIFT,
            ..RingGeometry::default()
        };
        DriverInfo {
            ring,
            first_tag: 1,
            last_tag: 0xffff,
            streams: spec::STREAMS,
            page_log2: 12,
            ipa_bits: 48,
            ats: u32::from(self.features & spec::DEVICE_CACHE != 0),
            modes: TranslationMode::NESTED.bit(),
        }
    }

    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        if mode != TranslationMode::NESTED {
            return Vec::new();
        }
        let register = |offset, value| Register { offset, value };
        vec![register(spec::ID, spec::ID_VALUE), register(spec::FEATURES, self.features & spec::DEVICE_CACHE)]
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        let ranges = self.hardware.alloc(spec::PAGE, spec::PAGE)?;
        self.last_handle += 1;
        self.stages.insert(self.last_handle, Stage { ranges, tag });
        Ok(self.last_handle)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        let into = self.stage(stage2)?;
        if access & 1 == 0 {
            return Err(refuse(Refusal::EOPNOTSUPP, "a range can always be read"));
        }
        let pages = (ipa | pa | len) & (spec::PAGE - 1) == 0 && len > 0;
        let Some(end) = ipa.checked_add(len).filter(|end| *end <= spec::INPUT_END && pages) else {
            return Err(refuse(Refusal::EINVAL, "not whole pages below 2^48"));
        };
        let mut free = None;
        for place in into.places() {
            let [first, _, bytes, flags] = self.load(place)?;
            if flags & spec::RANGE_VALID == 0 {
                free = free.or(Some(place));
            } else if first < end && ipa < first + bytes {
                return Err(refuse(Refusal::EEXIST, "mapped in part already"));
            }
        }
        let place = free.ok_or_else(|| refuse(Refusal::ENOSPC, "all ranges of this stage 2 are taken"))?;
        let write = if access & 2 != 0 { spec::RANGE_WRITE } else { 0 };
        self.store(place, [ipa, pa, len, spec::RANGE_VALID | write])
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        for place in self.stage(stage2)?.places() {
            let [first, _, bytes, flags] = self.load(place)?;
            if flags & spec::RANGE_VALID != 0 && (first, bytes) == (ipa, len) {
                return self.store(place, [0; 4]);
            }
        }
        Err(refuse(Refusal::ENOENT, "not what was mapped"))
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        if let Some(stage) = self.stages.remove(&stage2) {
            self.hardware.free(stage.ranges, spec::PAGE);
        }
    }

    // No guest has domains of its own: the tag is the stage 2's.
    fn attach(&mut self, stream: u32, stage2: u32, _tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        let Stage { ranges, tag } = self.stage(stage2)?;
        let nested = spec::ENTRY_VALID | spec::ENTRY_STAGE2 | u64::from(tag) << spec::ENTRY_TAG_SHIFT;
        let entry = match key.kind {
            KeyKind::TRANSLATE => [nested | spec::ENTRY_TABLE, key.words[1], ranges, 0],
            KeyKind::BYPASS => [nested, 0, ranges, 0],
            _ => [0; 4],
        };
        self.set_entry(stream, entry)
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        self.set_entry(stream, [0; 4])
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        let stream = u64::from(what.stream) << spec::STREAM_SHIFT;
        let word = match what.scope {
            Scope::SYNC => spec::WAIT.into(),
            Scope::DEVICE_CACHE => u64::from(spec::INVALIDATE_DEVICE) | spec::ALL | stream,
            Scope::CONFIGURATION => u64::from(spec::CHANGED) | stream,
            // A range of stage 2 is nobody's page: what is cached has the device's addresses.
            _ => u64::from(spec::INVALIDATE_TAG) | u64::from(what.tag & 0xffff) << spec::TAG_SHIFT,
        };
        let Some(place) = out.get_mut(..spec::COMMAND_WORDS) else { return 0 };
        place.copy_from_slice(&[word, 0]);
        spec::COMMAND_WORDS
    }

    fn queue_fault(&mut self) -> Option<QueueFault> {
        let head = self.hardware.mmio_read(spec::HEAD, 8);
        let kind = match head >> spec::ERROR_SHIFT & 0xff {
            0 => return None,
            spec::ERROR_FETCH => QueueFaultKind::FETCH,
            spec::ERROR_TIMEOUT => QueueFaultKind::ATC_TIMEOUT,
            _ => QueueFaultKind::ILLEGAL,
        };
        Some(QueueFault { kind, index: (head & spec::INDEX) as u32 })
    }

    fn queue_resume(&mut self) {
        self.hardware.mmio_write(spec::RESUME, 8, 1);
    }

    fn event(&mut self) -> Option<HostEvent> {
        let tail = self.hardware.mmio_read(spec::EVENT_TAIL, 8);
        let head = self.hardware.mmio_read(spec::EVENT_HEAD, 8);
        let mut event = HostEvent { owner: EventOwner::LOST, ..HostEvent::default() };
        if tail & spec::INDEX == head {
            // Records were lost behind the last that is there.
            if tail & spec::LOST == 0 {
                return None;
            }
            self.hardware.mmio_write(spec::EVENT_HEAD, 8, head | spec::LOST);
            return Some(event);
        }
        let record = self.load::<{ spec::EVENT_WORDS }>(self.events + head * 8 * spec::EVENT_WORDS as u64);
        self.hardware.mmio_write(spec::EVENT_HEAD, 8, (head + 1) & spec::INDEX);
        if let Ok([first, address]) = record {
            event.stream = first as u32;
            event.code = u32::from((first >> spec::CODE_SHIFT) as u8);
            event.owner = if event.code == spec::NO_RANGE { EventOwner::HOST } else { EventOwner::GUEST };
            event.words = spec::EVENT_WORDS as u32;
            event.record[..2].copy_from_slice(&[first & !0xffff_ffff, address]);
        }
        Some(event)
    }
}

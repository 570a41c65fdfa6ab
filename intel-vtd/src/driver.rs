//! Programs one physical VT-d: root, context and PASID tables, invalidation queue, fault records, second stage.

mod bring_up;
mod events;
mod invalidate;

use crate::features::Features;
use crate::spec::descriptors::{ContextCacheInv, Granularity, PasidCacheGranularity, PasidCacheInv, WIDE_WORDS};
use crate::spec::pasid::{PasidEntry0, PasidEntry1};
use crate::spec::registers::{Cap, Ecap, FaultStatus, offset};
use crate::tables::{
    ABORT, DeviceTables, Geometry, GuestTables, HostEntry, PasidEntry, Physical, SecondStage, Step, Tables,
};
use crate::tables::{physical, plan, write_word};
use invalidate::Limits;
use std::collections::BTreeMap;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, Hardware, HostEvent, HostInvalidation, QueueFault, QueueFaultKind, Refusal, Register,
    RingGeometry, TranslationMode,
};

/// What the physical VT-d can do.
#[derive(Debug, Clone, Copy)]
struct Identity {
    version: u32,
    cap: Cap,
    ecap: Ecap,
}

/// The invalidation queue in host memory: 256-bit descriptors.
#[derive(Debug, Clone, Copy)]
struct Queue {
    base: u64,
    log2: u32,
}

/// log2 of the bytes of a descriptor: the head and tail registers count bytes.
const DESCRIPTOR_LOG2: u32 = 5;

/// The driver of one physical VT-d.
pub struct VtdDriver {
    hardware: Box<dyn Hardware>,
    identity: Identity,
    tables: Tables,
    queue: Queue,
    geometry: Geometry,
    second_stages: BTreeMap<u32, SecondStage>,
    next_second_stage: u32,
    /// Devices whose requests go through tables of a guest.
    guests: BTreeMap<u32, GuestTables>,
}

impl VtdDriver {
    /// Takes over the VT-d: tables and queue, then enabled with every device aborting.
    ///
    /// The first descriptors go onto the queue by the driver's own hand, as [`Hardware::issue`] needs the ring's geometry,
    /// which [`Driver::info`] gives only later. Whoever drives the ring from then on starts at the index that IQH shows.
    ///
    /// # Errors
    /// EOPNOTSUPP naming the missing feature, ENOMEM, ETIMEDOUT if it does not answer, EIO if it refuses a descriptor.
    pub fn new(hardware: Box<dyn Hardware>) -> Result<Self, Refusal> {
        bring_up::take_over(hardware)
    }

    /// What of this VT-d decides bits of every entry.
    fn host_entry(&self) -> HostEntry {
        let Identity { cap, ecap, .. } = self.identity;
        HostEntry {
            nests: ecap.nested() && ecap.first_stage(),
            five_levels: cap.first_stage_5_levels(),
            supervisor: ecap.supervisor_request(),
            extended_accessed: ecap.extended_accessed(),
            device_tlb: ecap.device_tlb(),
            snoops: ecap.scalable_coherent(),
        }
    }

    /// Brings a device to `target`, each step seen by the hardware before the next.
    fn write(&self, stream: u32, device: DeviceTables, new: bool, target: &Physical) -> Result<(), Refusal> {
        let hardware = &*self.hardware;
        let context = device.read_context(hardware)?;
        let current = device.read_entry(hardware)?;
        let steps = plan(&current, &target.entry);
        // Off before the entry changes: from then on the device's own translations count for nothing.
        let closes = context.device_tlb_enable() && !target.device_tlb;
        let opens = !context.device_tlb_enable() && target.device_tlb;
        if closes {
            self.write_context(stream, device, context.with_device_tlb_enable(false).into())?;
        } else if new {
            hardware.issue(&context_changed(stream))?;
        }
        for step in &steps {
            match *step {
                Step::Write { word, value } => write_word(hardware, device.entry, word, value)?,
                Step::Forget => self.forget(&current)?,
            }
        }
        // Hardware that caches entries which are not present has to be told of every one that becomes so.
        let appears = !PasidEntry0::from_bits(current[0]).present() && !steps.is_empty();
        if appears && self.identity.cap.caching_mode() {
            self.forget(&target.entry)?;
        }
        if opens {
            self.write_context(stream, device, context.with_device_tlb_enable(true).into())?;
        }
        // What the device cached under another entry must not live on under this one.
        if target.device_tlb && (opens || !steps.is_empty()) {
            hardware.issue(&invalidate::device_tlb(stream))?;
        }
        Ok(())
    }

    fn write_context(&self, stream: u32, device: DeviceTables, word0: u64) -> Result<(), Refusal> {
        write_word(&*self.hardware, device.context, 0, word0)?;
        self.hardware.issue(&context_changed(stream))
    }

    /// Has the hardware forget an entry and what was translated by it: PASID cache, wait, IOTLB, wait.
    fn forget(&self, entry: &PasidEntry) -> Result<(), Refusal> {
        let domain = PasidEntry1::from_bits(entry[1]).domain_id();
        let cached = PasidCacheInv::new().with_granularity(PasidCacheGranularity::PASID.0).with_domain_id(domain);
        self.hardware.issue(&invalidate::wide(cached.words()))?;
        let mut words = [0; 2 * WIDE_WORDS];
        let written = invalidate::tag(domain, &mut words);
        self.hardware.issue(&words[..written])
    }

    fn second_stage(&self, handle: u32) -> Result<&SecondStage, Refusal> {
        self.second_stages.get(&handle).ok_or_else(|| no_second_stage(handle))
    }

    fn modes(&self) -> u32 {
        // The second stage is there, or the driver would not be: shadow tables are second-stage tables.
        let nested = if self.host_entry().nests { TranslationMode::NESTED.bit() } else { 0 };
        nested | TranslationMode::SHADOW.bit()
    }

    fn check_tag(&self, tag: u32) -> Result<u16, Refusal> {
        let info = self.info();
        match u16::try_from(tag) {
            Ok(domain) if (info.first_tag..=info.last_tag).contains(&tag) => Ok(domain),
            _ => Err(Refusal::new(Refusal::EINVAL, format!("domain-id {tag} is out of range"))),
        }
    }
}

/// The context entry of a device changed.
fn context_changed(stream: u32) -> [u64; WIDE_WORDS] {
    let changed = ContextCacheInv::new().with_granularity(Granularity::SELECTIVE.0).with_source_id(stream as u16);
    invalidate::wide(changed.words())
}

fn no_second_stage(handle: u32) -> Refusal {
    Refusal::new(Refusal::ENOENT, format!("second-stage table {handle}: no such table"))
}

/// FSTS while the queue stands still.
const QUEUE_ERRORS: FaultStatus =
    FaultStatus::new().with_queue_error(true).with_completion_error(true).with_time_out(true);

impl Driver for VtdDriver {
    fn info(&self) -> DriverInfo {
        let Identity { cap, ecap, .. } = self.identity;
        DriverInfo {
            ring: RingGeometry {
                base: self.queue.base,
                log2_commands: self.queue.log2,
                command_words: WIDE_WORDS as u32,
                producer: offset::IQT,
                consumer: offset::IQH,
                index_shift: DESCRIPTOR_LOG2,
                wrap_bit: 0,
                error_mask: 0,
                error_register: offset::FSTS as u32,
                error_bits: QUEUE_ERRORS.into_bits(),
                running_bits: 0,
            },
            // Domain-id 0 is the hardware's own where it caches what is not present.
            first_tag: 1,
            last_tag: (1 << (4 + 2 * u32::from(cap.domains()).min(6))) - 1,
            streams: self.tables.streams(),
            page_log2: 12,
            ipa_bits: self.geometry.input_bits(),
            ats: ecap.device_tlb().into(),
            modes: self.modes(),
        }
    }

    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        if self.modes() & mode.bit() == 0 {
            return Vec::new();
        }
        let Identity { version, cap, ecap } = self.identity;
        Features::shown(Features { ver: version, cap, ecap }, mode).registers().to_vec()
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        let tag = self.check_tag(tag)?;
        let table = SecondStage::new(&*self.hardware, self.geometry, tag)?;
        let handle = self.next_second_stage;
        self.next_second_stage += 1;
        self.second_stages.insert(handle, table);
        Ok(handle)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        let table = self.second_stages.get_mut(&stage2).ok_or_else(|| no_second_stage(stage2))?;
        table.map(&*self.hardware, ipa, pa, len, access)
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        let table = self.second_stages.get_mut(&stage2).ok_or_else(|| no_second_stage(stage2))?;
        table.unmap(&*self.hardware, ipa, len)
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        if let Some(table) = self.second_stages.remove(&stage2) {
            table.destroy(&*self.hardware);
        }
    }

    fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        let tag = self.check_tag(tag)?;
        let target = physical(key, self.second_stage(stage2)?, tag, self.host_entry())?;
        let (device, new) = self.tables.find_or_make(&*self.hardware, stream)?;
        self.write(stream, device, new, &target)?;
        match GuestTables::of(key) {
            Some(tables) => self.guests.insert(stream, tables),
            None => self.guests.remove(&stream),
        };
        Ok(())
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        self.guests.remove(&stream);
        match self.tables.find(&*self.hardware, stream)? {
            Some(device) => self.write(stream, device, false, &ABORT),
            None => Ok(()),
        }
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        let Identity { cap, ecap, .. } = self.identity;
        let limits = Limits {
            pages_log2: cap.page_selective().then(|| u32::from(cap.max_address_mask())),
            device_tlb: ecap.device_tlb(),
        };
        invalidate::encode(what, limits, out)
    }

    /// IQH stands at the descriptor that is wrong, or behind the device-TLB invalidation that was not answered.
    fn queue_fault(&mut self) -> Option<QueueFault> {
        let status = FaultStatus::from_bits(self.hardware.mmio_read(offset::FSTS, 4) as u32);
        let error = self.hardware.mmio_read(offset::IQERCD, 8);
        let kind = match (status.queue_error(), status.time_out() || status.completion_error()) {
            (false, false) => return None,
            (false, true) => QueueFaultKind::ATC_TIMEOUT,
            (true, _) => bring_up::queue_error_kind(error.into()),
        };
        let head = self.hardware.mmio_read(offset::IQH, 4) as u32;
        Some(QueueFault { kind, index: head >> DESCRIPTOR_LOG2 & ((1 << self.queue.log2) - 1) })
    }

    fn queue_resume(&mut self) {
        self.hardware.mmio_write(offset::FSTS, 4, QUEUE_ERRORS.into_bits().into());
    }

    fn event(&mut self) -> Option<HostEvent> {
        self.next_event()
    }
}

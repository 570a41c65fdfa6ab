//! Taking over a VT-d, in the order of the manual (§6.5, §11.4.4).

use super::{DESCRIPTOR_LOG2, Identity, QUEUE_ERRORS, Queue, VtdDriver, invalidate};
use crate::spec::descriptors::{
    ContextCacheInv, Granularity, IotlbInv, PasidCacheGranularity, PasidCacheInv, WIDE_WORDS, Wait,
};
use crate::spec::registers::{
    Cap, Ecap, EventControl, FaultStatus, Global, QueueAddress, QueueError, QueueErrorInfo, offset,
};
use crate::tables::{Geometry, Tables, broken};
use std::collections::BTreeMap;
use viommu_plugin::{Hardware, QueueFaultKind, Refusal};

/// IQA.QS: 2^6 pages.
const QUEUE_SIZE: u8 = 6;
/// Register reads before "does not answer": about a second.
const POLLS: u32 = 1 << 20;
/// Bits of GCMD that are commands, not states: a write that repeats the status leaves them out.
const ONE_SHOT: Global =
    Global::new().with_root_table(true).with_fault_log(true).with_write_buffer_flush(true).with_interrupt_table(true);

impl Identity {
    fn read(hardware: &dyn Hardware) -> Self {
        Self {
            version: hardware.mmio_read(offset::VER, 4) as u32,
            cap: Cap::from_bits(hardware.mmio_read(offset::CAP, 8)),
            ecap: Ecap::from_bits(hardware.mmio_read(offset::ECAP, 8)),
        }
    }

    /// What a host needs and the hardware lacks.
    fn missing(&self) -> Option<&'static str> {
        if !self.ecap.queued_invalidation() {
            return Some("ECAP.QI = 0");
        }
        if !self.ecap.scalable_mode() || !self.ecap.second_stage() {
            return Some("ECAP.SMTS and SSTS must both be 1: guests are held by second-stage tables in scalable mode");
        }
        if !self.ecap.coherent() && !self.ecap.scalable_coherent() {
            return Some("ECAP.C and SMPWCS = 0: table walks must be coherent");
        }
        if Geometry::new(self.cap).is_none() {
            return Some("CAP.SAGAW has no second-stage tables");
        }
        None
    }
}

/// What an error of the queue is to whoever repairs it.
pub(super) fn queue_error_kind(error: QueueError) -> QueueFaultKind {
    match QueueErrorInfo(error.info()) {
        QueueErrorInfo::FETCH => QueueFaultKind::FETCH,
        _ => QueueFaultKind::ILLEGAL,
    }
}

pub(super) fn take_over(hardware: Box<dyn Hardware>) -> Result<VtdDriver, Refusal> {
    let identity = Identity::read(&*hardware);
    let no = |missing: &str| Refusal::new(Refusal::EOPNOTSUPP, format!("VT-d cannot host a vIOMMU: {missing}"));
    if let Some(missing) = identity.missing() {
        return Err(no(missing));
    }
    let geometry = Geometry::new(identity.cap).ok_or_else(|| no("CAP.SAGAW"))?;
    let tables = Tables::new(&*hardware)?;
    let address = QueueAddress::new().with_size(QUEUE_SIZE).with_wide(true);
    let base = hardware.alloc(address.bytes(), address.bytes())?;
    let queue = Queue { base, log2: address.bytes().trailing_zeros() - DESCRIPTOR_LOG2 };

    let setup = Setup { hardware: &*hardware };
    setup.command(|status| status.with_translation(false))?;
    setup.command(|status| status.with_queued_invalidation(false))?;
    setup.faults(identity.cap);
    hardware.mmio_write(offset::IQT, 4, 0);
    hardware.mmio_write(offset::IQA, 8, address.with_base(base >> 12).into());
    setup.command(|status| status.with_queued_invalidation(true))?;
    hardware.mmio_write(offset::RTADDR, 8, tables.root_register().into());
    setup.command(|status| status.with_root_table(true))?;
    setup.invalidate_all(queue)?;
    setup.command(|status| status.with_translation(true))?;
    Ok(VtdDriver {
        hardware,
        identity,
        tables,
        queue,
        geometry,
        second_stages: BTreeMap::new(),
        next_second_stage: 1,
        guests: BTreeMap::new(),
    })
}

struct Setup<'a> {
    hardware: &'a dyn Hardware,
}

impl Setup<'_> {
    fn read(&self, at: u64) -> u32 {
        self.hardware.mmio_read(at, 4) as u32
    }

    /// Waits until `done` holds for the register.
    fn poll(&self, at: u64, done: impl Fn(u32) -> bool, what: &str) -> Result<(), Refusal> {
        for _ in 0..POLLS {
            if done(self.read(at)) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(Refusal::new(Refusal::ETIMEDOUT, format!("VT-d does not answer: {what}")))
    }

    /// Writes GCMD with one change to what GSTS shows, and waits until GSTS shows it.
    fn command(&self, change: impl Fn(Global) -> Global) -> Result<(), Refusal> {
        let status = self.read(offset::GSTS);
        let wanted = change(Global::from_bits(status & !ONE_SHOT.into_bits())).into_bits();
        self.hardware.mmio_write(offset::GCMD, 4, wanted.into());
        // States follow as written; what was commanded before stays shown.
        let done = |now: u32| now & !ONE_SHOT.into_bits() == wanted & !ONE_SHOT.into_bits() && wanted & !now == 0;
        self.poll(offset::GSTS, done, "GSTS does not follow GCMD")
    }

    /// No fault of earlier days; and a message for each new one, which a machine without an interrupt controller
    /// behind the VT-d (FEADDR 0) takes as line 0.
    fn faults(&self, cap: Cap) {
        for index in 0..=u32::from(cap.fault_registers()) {
            let at = cap.fault_register(index) + 12;
            let record = self.hardware.mmio_read(at, 4);
            self.hardware.mmio_write(at, 4, record);
        }
        let all = QUEUE_ERRORS.with_overflow(true).with_page_request_overflow(true);
        self.hardware.mmio_write(offset::FSTS, 4, FaultStatus::into_bits(all).into());
        self.hardware.mmio_write(offset::FECTL, 4, EventControl::new().with_mask(false).into_bits().into());
    }

    /// Nothing that was cached before counts.
    fn invalidate_all(&self, queue: Queue) -> Result<(), Refusal> {
        let global = [
            ContextCacheInv::new().with_granularity(Granularity::GLOBAL.0).words(),
            PasidCacheInv::new().with_granularity(PasidCacheGranularity::GLOBAL.0).words(),
            IotlbInv::new().with_granularity(Granularity::GLOBAL.0).words(),
        ];
        let wait = Wait::new().with_fence(true).words();
        let mut tail = self.read(offset::IQH) >> DESCRIPTOR_LOG2;
        for words in global {
            for words in [words, wait] {
                let bytes: Vec<u8> = invalidate::wide(words).iter().flat_map(|word| word.to_le_bytes()).collect();
                let at = queue.base + u64::from(tail) * 8 * WIDE_WORDS as u64;
                self.hardware.write(at, &bytes).map_err(broken)?;
                tail = (tail + 1) & ((1 << queue.log2) - 1);
            }
            self.hardware.mmio_write(offset::IQT, 4, u64::from(tail << DESCRIPTOR_LOG2));
            let errors = || self.read(offset::FSTS) & QUEUE_ERRORS.into_bits() != 0;
            let done = |head: u32| head >> DESCRIPTOR_LOG2 == tail || errors();
            self.poll(offset::IQH, done, "IQH does not reach IQT")?;
            if errors() {
                return Err(Refusal::new(Refusal::EIO, "VT-d refuses the first descriptors (FSTS)"));
            }
        }
        Ok(())
    }
}

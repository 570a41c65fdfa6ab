//! The invalidation queue (§6.5.2): fetch, execute, stand still at an error until software acknowledges it. And the
//! same invalidations by register (§6.5.1).

use super::RemappingUnit;
use crate::spec::descriptors::{
    ContextCacheInv, DescriptorType, DeviceTlbInv, Granularity, IotlbInv, NARROW_WORDS, PasidCacheGranularity,
    PasidCacheInv, PasidDeviceTlbInv, PasidIotlbGranularity, PasidIotlbInv, WIDE_WORDS, Wait,
};
use crate::spec::registers::{
    CompletionStatus, ContextCommand, InvalidateAddress, IotlbCommand, QueueError, QueueErrorInfo, offset,
};
use viommu_cache::Range;

/// What an invalidation of context cache or IOTLB names.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Global,
    Domain(u16),
    /// Pages of a domain: ADDR\[63:12\] and AM.
    Pages(u16, u64, u8),
}

impl RemappingUnit {
    /// Executes at most `budget` descriptors; how many. Stops early when the queue is empty, off, or in error.
    pub(super) fn consume(&mut self, budget: u32) -> u32 {
        for consumed in 0..budget {
            let status = self.registers.fault_status();
            if !self.registers.status().queued_invalidation() || status.queue_error() || status.time_out() {
                return consumed;
            }
            let queue = self.registers.queue();
            let (tail, step) = (u64::from(self.registers.word(offset::IQT)), 1u64 << queue.descriptor_log2());
            let head = u64::from(self.registers.word(offset::IQH)) & (queue.bytes() - 1) & !(step - 1);
            if head == tail {
                return consumed;
            }
            let outcome = if tail >= queue.bytes() {
                Err(QueueErrorInfo::TAIL)
            } else if tail & (step - 1) != 0 {
                Err(QueueErrorInfo::TAIL_UNALIGNED)
            } else {
                self.fetch(queue.address().wrapping_add(head), queue.wide())
                    .ok_or(QueueErrorInfo::FETCH)
                    .and_then(|words| self.execute(words, queue.wide()))
            };
            if let Err(info) = outcome {
                self.queue_error(info);
                return consumed;
            }
            self.registers.set(offset::IQH, ((head + step) & (queue.bytes() - 1)) as u32);
        }
        budget
    }

    fn fetch(&self, address: u64, wide: bool) -> Option<[u64; WIDE_WORDS]> {
        let mut bytes = [0; 8 * WIDE_WORDS];
        let length = if wide { 8 * WIDE_WORDS } else { 8 * NARROW_WORDS };
        self.host.read(address, &mut bytes[..length]).ok()?;
        let mut words = [0; WIDE_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        Some(words)
    }

    /// One descriptor. What the unit does not offer, a reserved bit and a reserved value are errors.
    fn execute(&mut self, [w0, w1, w2, w3]: [u64; WIDE_WORDS], wide: bool) -> Result<(), QueueErrorInfo> {
        let (kind, words, ecap) = (DescriptorType::of(w0), [w0, w1], self.identity.ecap);
        let reserved = kind.reserved().ok_or(QueueErrorInfo::TYPE)?;
        let offered = match kind {
            DescriptorType::DEVICE_TLB => ecap.device_tlb(),
            DescriptorType::PASID_IOTLB | DescriptorType::PASID_CACHE => ecap.scalable_mode(),
            DescriptorType::PASID_DEVICE_TLB => ecap.scalable_mode() && ecap.device_tlb(),
            DescriptorType::PAGE_GROUP_RESPONSE => ecap.page_request(),
            _ => true,
        };
        if !offered {
            return Err(QueueErrorInfo::TYPE);
        }
        let only_wide = [
            DescriptorType::PASID_IOTLB,
            DescriptorType::PASID_CACHE,
            DescriptorType::PASID_DEVICE_TLB,
            DescriptorType::PAGE_GROUP_RESPONSE,
        ];
        if !wide && only_wide.contains(&kind) {
            return Err(QueueErrorInfo::WIDTH);
        }
        if w0 & reserved[0] | w1 & reserved[1] | w2 | w3 != 0 {
            return Err(QueueErrorInfo::RESERVED);
        }
        match kind {
            DescriptorType::CONTEXT_CACHE => self.context_cache(ContextCacheInv::from_words(words)),
            DescriptorType::IOTLB => self.iotlb(IotlbInv::from_words(words)),
            DescriptorType::PASID_IOTLB => self.pasid_iotlb(PasidIotlbInv::from_words(words)),
            DescriptorType::PASID_CACHE => self.pasid_cache(PasidCacheInv::from_words(words)),
            DescriptorType::DEVICE_TLB => {
                let command = DeviceTlbInv::from_words(words);
                if self.answers(command.source_id())
                    && let Some(atc) = &mut self.atc
                {
                    atc.invalidate(command);
                }
                Ok(())
            }
            DescriptorType::PASID_DEVICE_TLB => {
                let command = PasidDeviceTlbInv::from_words(words);
                if self.answers(command.source_id())
                    && let Some(atc) = &mut self.atc
                {
                    atc.invalidate_pasid(command);
                }
                Ok(())
            }
            DescriptorType::WAIT => {
                self.wait(Wait::from_words(words));
                Ok(())
            }
            // Interrupt remapping is not modelled, and this unit makes no page requests that could be answered.
            _ => Ok(()),
        }
    }

    fn context_cache(&mut self, command: ContextCacheInv) -> Result<(), QueueErrorInfo> {
        match Granularity(command.granularity()) {
            Granularity::GLOBAL => self.configuration.forget_contexts(),
            Granularity::DOMAIN => self.configuration.forget_domain(command.domain_id()),
            Granularity::SELECTIVE => {
                let (domain, source) = (command.domain_id(), command.source_id());
                self.configuration.forget_device(domain, source, command.function_mask());
            }
            _ => return Err(QueueErrorInfo::RESERVED),
        }
        Ok(())
    }

    fn iotlb(&mut self, command: IotlbInv) -> Result<(), QueueErrorInfo> {
        let domain = command.domain_id();
        let scope = match Granularity(command.granularity()) {
            Granularity::GLOBAL => Scope::Global,
            Granularity::DOMAIN => Scope::Domain(domain),
            Granularity::SELECTIVE => Scope::Pages(domain, command.address(), command.address_mask()),
            _ => return Err(QueueErrorInfo::RESERVED),
        };
        self.forget_translations(scope).ok_or(QueueErrorInfo::RESERVED)
    }

    /// `None`, and nothing done, if AM is more than CAP.MAMV.
    fn forget_translations(&mut self, scope: Scope) -> Option<()> {
        let cap = self.identity.cap;
        match scope {
            Scope::Global => self.tlb.clear(),
            Scope::Domain(domain) => self.tlb.clear_domain(domain),
            Scope::Pages(domain, ..) if !cap.page_selective() => self.tlb.clear_domain(domain),
            Scope::Pages(_, _, mask) if mask > cap.max_address_mask() => return None,
            Scope::Pages(domain, page, mask) => {
                self.tlb.second_stage_pages(domain, Range::block(page << 12, 12 + mask));
            }
        }
        Some(())
    }

    fn pasid_iotlb(&mut self, command: PasidIotlbInv) -> Result<(), QueueErrorInfo> {
        let (domain, pasid, mask) = (command.domain_id(), command.pasid(), command.address_mask());
        match PasidIotlbGranularity(command.granularity()) {
            PasidIotlbGranularity::PASID => self.tlb.clear_pasid(domain, pasid),
            PasidIotlbGranularity::PAGES if mask <= self.identity.cap.max_address_mask() => {
                self.tlb.pasid_pages(domain, pasid, Range::block(command.address() << 12, 12 + mask));
            }
            _ => return Err(QueueErrorInfo::RESERVED),
        }
        Ok(())
    }

    fn pasid_cache(&mut self, command: PasidCacheInv) -> Result<(), QueueErrorInfo> {
        let (domain, pasid) = (command.domain_id(), command.pasid());
        match PasidCacheGranularity(command.granularity()) {
            PasidCacheGranularity::DOMAIN => self.configuration.forget_pasids(Some(domain), None),
            PasidCacheGranularity::PASID => self.configuration.forget_pasids(Some(domain), Some(pasid)),
            PasidCacheGranularity::GLOBAL => self.configuration.forget_pasids(None, None),
            _ => return Err(QueueErrorInfo::RESERVED),
        }
        Ok(())
    }

    /// Whether the device answers. If not, FSTS.ITE is set at once: the head is past the invalidation, and no later
    /// descriptor, so no wait, is taken until software has cleared it.
    fn answers(&mut self, source: u16) -> bool {
        let silent = self.unresponsive.contains(&u32::from(source));
        if silent {
            let record = QueueError::from(self.registers.double(offset::IQERCD)).with_time_out_source(source);
            self.registers.set_double(offset::IQERCD, record.into());
            let before = self.registers.fault_status();
            self.registers.set_fault_status(before.with_time_out(true));
            self.fault_event(before);
        }
        !silent
    }

    fn queue_error(&mut self, info: QueueErrorInfo) {
        let record = QueueError::from(self.registers.double(offset::IQERCD)).with_info(info.0);
        self.registers.set_double(offset::IQERCD, record.into());
        let before = self.registers.fault_status();
        self.registers.set_fault_status(before.with_queue_error(true));
        self.fault_event(before);
    }

    /// Descriptors complete as they are consumed, so all before a wait are.
    fn wait(&mut self, command: Wait) {
        if command.status_write() {
            // A status that reaches nothing is lost: the manual has no error for it.
            let _ = self.host.write(command.status_address() << 2, &command.status_data().to_le_bytes());
        }
        let status = CompletionStatus::from(self.registers.word(offset::ICS));
        if command.interrupt() && !status.wait_complete() {
            self.registers.set(offset::ICS, status.with_wait_complete(true).into());
            self.registers.set_pending(offset::IECTL, true);
            self.release(offset::IECTL);
        }
    }

    /// CCMD with ICC: nothing is done while the queue is on (§6.5.1), and CAIG says so.
    pub(super) fn context_command(&mut self) {
        let command = ContextCommand::from(self.registers.double(offset::CCMD));
        let by_queue = self.registers.status().queued_invalidation();
        let asked = if by_queue { Granularity::RESERVED } else { Granularity(command.granularity()) };
        match asked {
            Granularity::GLOBAL => self.configuration.forget_contexts(),
            Granularity::DOMAIN => self.configuration.forget_domain(command.domain_id()),
            Granularity::SELECTIVE => {
                let (domain, source) = (command.domain_id(), command.source_id());
                self.configuration.forget_device(domain, source, command.function_mask());
            }
            _ => {}
        }
        self.registers.set_double(offset::CCMD, command.with_invalidate(false).with_actual(asked.0).into());
    }

    /// IOTLB with IVT, as [`RemappingUnit::context_command`].
    pub(super) fn iotlb_command(&mut self) {
        let ecap = self.identity.ecap;
        let command = IotlbCommand::from(self.registers.double(ecap.iotlb()));
        let address = InvalidateAddress::from(self.registers.double(ecap.iva()));
        let domain = command.domain_id();
        let scope = match Granularity(command.granularity()) {
            _ if self.registers.status().queued_invalidation() => None,
            Granularity::GLOBAL => Some(Scope::Global),
            Granularity::DOMAIN => Some(Scope::Domain(domain)),
            Granularity::SELECTIVE => Some(Scope::Pages(domain, address.address(), address.address_mask())),
            _ => None,
        };
        let done = scope.and_then(|scope| self.forget_translations(scope));
        let actual = if done.is_some() { command.granularity() } else { Granularity::RESERVED.0 };
        self.registers.set_double(ecap.iotlb(), command.with_invalidate(false).with_actual(actual).into());
    }
}

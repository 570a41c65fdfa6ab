//! What no guest of VT-d may do.

use super::words::{self, at};
use super::{CONTEXT_TABLE, Vtd};
use crate::guest::Stopped;
use crate::guest::iommu::Iommu;
use crate::guest::layout::{PAGE, RAM};
use crate::guest::system::{Queue, System};
use crate::plan::{Attack, STREAMS, Scope, Signal};

const ON: u64 = words::QIE | words::TE;

impl System<Vtd> {
    pub(super) fn attack(&mut self, what: Attack, word: u64) -> Result<(), Stopped> {
        match what {
            Attack::Foreign => self.foreign(word),
            Attack::Absurd => {
                for command in [
                    words::iotlb_pages(word as u16, word & !0xfff, 12 + 63),
                    words::pasid_iotlb_pages(word as u16, !0xfff, 12 + 18),
                    words::context_cache_device(word as u16, u32::MAX),
                    words::device_tlb(word as u32),
                ] {
                    self.push(command, &[])?;
                }
                self.sync(Signal::Poll)
            }
            Attack::Noise => {
                for shift in [0, 13, 29, 47] {
                    let command = [word.rotate_left(shift), word.rotate_right(shift), word & shift as u64, 0];
                    self.push(command, &[])?;
                }
                self.sync(Signal::Later)
            }
            Attack::QueueNowhere => {
                self.machine.write(at::GCMD, 4, words::TE)?;
                self.machine.write(at::IQA, 8, word)?;
                self.machine.write(at::GCMD, 4, ON)?;
                self.machine.write(at::IQT, 4, word >> 32 & 0xff0)?;
                self.restart_queue()
            }
            Attack::BeyondQueue => {
                self.machine.write(at::IQT, 4, word & 0xf_ffff)?;
                self.restart_queue()
            }
            Attack::TablesNowhere => {
                self.machine.write(at::RTADDR, 8, word)?;
                self.machine.write(at::GCMD, 4, ON | words::SRTP)?;
                Vtd::announce(self, 0, Scope::All, None)?;
                self.sync(Signal::Poll)?;
                self.machine.write(at::RTADDR, 8, self.iommu.root_address())?;
                self.machine.write(at::GCMD, 4, ON | words::SRTP)
            }
            Attack::EntryNoise => self.entry_noise(word),
            Attack::RegisterNoise => {
                self.machine.write(word & 0xffc, 4, word >> 32)?;
                self.machine.write(word >> 8 & 0xfc, 4, word >> 16 & 0xffff_ffff)
            }
            Attack::NeverAcknowledge => {
                self.queue.stubborn = true;
                self.push([0xf, word, 0, 0], &[])?;
                self.sync(Signal::Poll)
            }
            Attack::MessageAnywhere => {
                self.push(words::wait_store(word & 0x000f_ffff_ffff_fffc, word as u32), &[])?;
                self.sync(Signal::Poll)
            }
        }
    }

    /// Everything that other guests have, by their numbers, which are often this guest's too.
    fn foreign(&mut self, word: u64) -> Result<(), Stopped> {
        let stream = word as u32 % (4 * STREAMS);
        let domain = (word >> 32) as u16;
        for command in [
            self.iommu.everything_of(domain & 0x1f),
            self.iommu.everything_of(domain),
            words::context_cache_device(domain, stream),
            words::pasid_cache_domain(domain),
            words::device_tlb(stream),
            words::iotlb(),
        ] {
            self.push(command, &[])?;
        }
        self.sync(Signal::Poll)
    }

    /// Entries and page tables that lead to where the host and the others are.
    fn entry_noise(&mut self, word: u64) -> Result<(), Stopped> {
        let virt_id = self.virt_id(word as u8);
        let number = self.machine.plan.devices.iter().find(|device| device.virt_id == virt_id);
        let number = number.map_or(0, |device| device.number);
        // Some host physical address: another machine's memory, or the host's tables.
        let host = crate::world::somewhere(word) & 0x000f_ffff_ffff_f000;
        let domain = (word >> 40) as u16;
        let table = RAM + (word >> 16 & 0x7f_f000);
        for slot in 0..8 {
            self.machine.store(table + 8 * slot, &[(self.iommu.format().leaf)(host, 1, true)]);
        }
        let root = if word >> 11 & 1 == 0 { host } else { table };
        if self.iommu.legacy {
            let entry = match word >> 8 & 3 {
                0 => [word | 1, word.rotate_left(32)],
                _ => words::context_entry::second_stage(root, domain),
            };
            self.machine.store(CONTEXT_TABLE + 16 * u64::from(virt_id), &entry);
        } else {
            let entry = match word >> 8 & 7 {
                0 => [word | 1, word.rotate_left(32), host],
                1 => words::pasid_entry::second_stage(root, domain),
                // PGTT 3: both stages of the guest's.
                2 => [host | 3 << 6 | 1, domain.into(), root],
                _ => words::pasid_entry::first_stage(root, domain),
            };
            let directory = Vtd::directory(number);
            self.machine.store(directory + PAGE, &entry);
            if word >> 12 & 7 == 0 {
                self.machine.store(directory, &[host | words::PRESENT]);
            }
        }
        Vtd::announce(self, virt_id, Scope::One, Some(domain))?;
        self.sync(Signal::Poll)?;
        self.machine.store(Vtd::directory(number), &[(Vtd::directory(number) + PAGE) | words::PRESENT]);
        Ok(())
    }

    /// The queue as it was set up, empty.
    fn restart_queue(&mut self) -> Result<(), Stopped> {
        self.machine.write(at::GCMD, 4, words::TE)?;
        self.queue = Queue::new(self.iommu.ring());
        self.machine.write(at::IQT, 4, 0)?;
        self.machine.write(at::IQA, 8, self.iommu.queue_address())?;
        self.machine.write(at::FSTS, 4, words::STOPPED)?;
        self.machine.write(at::GCMD, 4, ON)
    }
}

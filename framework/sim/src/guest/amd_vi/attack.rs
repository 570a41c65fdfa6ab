//! What no guest of AMD-Vi may do.

use super::words::{self, at};
use super::{AmdIommu, RING_LOG2, TABLE_SIZE};
use crate::guest::Stopped;
use crate::guest::iommu::{Holder, Iommu};
use crate::guest::layout::{self, RAM};
use crate::guest::system::{Queue, System};
use crate::plan::{Attack, STREAMS, Scope, Signal};

impl System<AmdIommu> {
    pub(super) fn attack(&mut self, what: Attack, word: u64) -> Result<(), Stopped> {
        let on = self.iommu.control() | words::IOMMU_EN;
        match what {
            Attack::Foreign => self.foreign(word),
            Attack::Absurd => {
                for command in [
                    words::invalidate_range(word as u16, 0, 63, words::PDE),
                    words::invalidate_pages(word as u16, !0xfff, words::SIZE),
                    words::invalidate_devtab_entry(0xffff),
                    words::invalidate_iotlb_pages(word as u32),
                    words::prefetch(0xffff),
                ] {
                    self.push(command, &[])?;
                }
                self.sync(Signal::Poll)
            }
            Attack::Noise => {
                for shift in [0, 13, 29, 47] {
                    let command = [word.rotate_left(shift), word.rotate_right(shift).wrapping_mul(word | 1), 0, 0];
                    self.push(command, &[])?;
                }
                self.sync(Signal::Later)
            }
            Attack::QueueNowhere => {
                self.machine.write(at::COMMAND_BASE, 8, word)?;
                self.machine.write(at::CONTROL, 8, on)?;
                self.machine.write(at::COMMAND_TAIL, 8, word >> 32 & 0xfff)?;
                self.restart_queue()
            }
            Attack::BeyondQueue => {
                self.machine.write(at::COMMAND_TAIL, 8, word & 0xf_ffff)?;
                self.restart_queue()
            }
            Attack::TablesNowhere => {
                self.machine.write(at::DEVICE_TABLE_BASE, 8, word)?;
                AmdIommu::announce(self, 0, Scope::All, None)?;
                self.sync(Signal::Poll)?;
                self.machine.write(at::DEVICE_TABLE_BASE, 8, layout::DEVICE_TABLE | TABLE_SIZE)
            }
            Attack::EntryNoise => self.entry_noise(word),
            Attack::RegisterNoise => {
                self.machine.write(word & 0x3ffc, 4, word >> 32)?;
                self.machine.write(word >> 8 & 0x38, 8, word)
            }
            Attack::NeverAcknowledge => {
                self.queue.stubborn = true;
                self.push([0xb << 60, word, 0, 0], &[])?;
                self.sync(Signal::Poll)
            }
            Attack::MessageAnywhere => {
                self.push(words::completion_wait_store(word & 0x000f_ffff_ffff_fff8, word), &[])?;
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
            words::invalidate_devtab_entry(stream),
            words::invalidate_iotlb_pages(stream),
            words::invalidate_interrupt_table(stream),
            words::prefetch(stream),
        ] {
            self.push(command, &[])?;
        }
        self.sync(Signal::Poll)
    }

    /// Entries, GCR3 tables and page tables that lead to where the host and the others are.
    fn entry_noise(&mut self, word: u64) -> Result<(), Stopped> {
        let virt_id = self.virt_id(word as u8);
        // Some host physical address: another machine's memory, or the host's tables.
        let host = crate::world::somewhere(word) & 0x000f_ffff_ffff_f000;
        let domain = (word >> 40) as u16;
        let context = self.iommu.context(Holder::Space(word as usize % 3));
        let table = RAM + (word >> 16 & 0x7f_f000);
        let [w0, w1] = match word >> 8 & 7 {
            0 => words::dte::v1(host, domain),
            1 => words::dte::gcr3(host, domain),
            2 => words::dte::v1(table, domain),
            3 => words::dte::gcr3(table, domain),
            4 => [word | 3, word.rotate_left(32)],
            5 => [words::dte::gcr3(context, domain)[0] | 3 << 56, u64::MAX],
            _ => words::dte::gcr3(context, domain),
        };
        self.machine.store(layout::DEVICE_TABLE + 32 * u64::from(virt_id), &[w0, w1, word, host]);
        self.machine.store(context, &[if word >> 11 & 1 == 0 { host | 1 } else { table | 1 }]);
        for slot in 0..8 {
            self.machine.store(table + 8 * slot, &[(self.iommu.format().leaf)(host, 1, true)]);
        }
        AmdIommu::announce(self, virt_id, Scope::One, Some(domain))?;
        self.sync(Signal::Poll)
    }

    /// The queue as it was set up, empty.
    fn restart_queue(&mut self) -> Result<(), Stopped> {
        let on = self.iommu.control() | words::IOMMU_EN;
        self.machine.write(at::CONTROL, 8, on & !words::CMD_BUF_EN)?;
        self.queue = Queue::new(self.iommu.ring());
        self.machine.write(at::COMMAND_BASE, 8, words::ring_base(layout::COMMANDS, RING_LOG2.into()))?;
        self.machine.write(at::CONTROL, 8, on)
    }
}

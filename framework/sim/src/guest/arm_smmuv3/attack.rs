//! What no guest may do. The oracle promises such a guest nothing; the others, everything.

use super::words::{self, at};
use super::{STREAMS_LOG2, Smmu};
use crate::guest::Stopped;
use crate::guest::format::VMSA;
use crate::guest::iommu::{Holder, Iommu};
use crate::guest::layout::{self, RAM};
use crate::guest::system::{Queue, System};
use crate::oracle::Effect;
use crate::plan::{Attack, STREAMS, Scope, Signal};

impl System<Smmu> {
    pub(super) fn attack(&mut self, what: Attack, word: u64) -> Result<(), Stopped> {
        match what {
            Attack::Foreign => self.foreign(word),
            Attack::Absurd => {
                let all = u64::MAX << 12;
                for command in [
                    words::tlbi_range(word as u16, all, 31, 31, 0),
                    words::tlbi_range(word as u16, 0, 31, 31, 1),
                    words::cfgi_ste_range(u32::MAX, 31),
                    words::cfgi_ste_range(word as u32, word >> 32 & 31),
                    words::cfgi_cd(u32::MAX, false),
                ] {
                    self.push(command, &[])?;
                }
                self.sync(Signal::Poll)
            }
            Attack::Noise => {
                for shift in [0, 13, 29, 47] {
                    self.push([word.rotate_left(shift), word.rotate_right(shift).wrapping_mul(word | 1), 0, 0], &[])?;
                }
                self.sync(Signal::Later)
            }
            Attack::QueueNowhere => {
                self.machine.write(at::CR0, 4, words::SMMUEN)?;
                self.machine.write(at::CMDQ_BASE, 8, word & 0xffff_ffff_ffe0 | word >> 59)?;
                self.machine.write(at::CR0, 4, words::SMMUEN | words::CMDQEN)?;
                self.machine.write(at::CMDQ_PROD, 4, word >> 32 & 0x1f)?;
                self.restart_queue()
            }
            Attack::BeyondQueue => {
                self.machine.write(at::CMDQ_PROD, 4, word & 0xf_ffff)?;
                self.restart_queue()
            }
            Attack::TablesNowhere => {
                self.machine.write(at::STRTAB_BASE, 8, word & 0x00ff_ffff_ffff_ffc0)?;
                self.machine.write(at::STRTAB_BASE_CFG, 4, word >> 32 & 0x3_07ff)?;
                Smmu::announce(self, 0, Scope::All, None)?;
                self.sync(Signal::Poll)?;
                self.machine.write(at::STRTAB_BASE, 8, layout::DEVICE_TABLE)?;
                self.machine.write(at::STRTAB_BASE_CFG, 4, STREAMS_LOG2)
            }
            Attack::EntryNoise => self.entry_noise(word),
            Attack::RegisterNoise => {
                self.machine.write(word & 0x1_fffc, 4, word >> 32)?;
                self.machine.write(word >> 8 & 0xfc, 4, word >> 16 & 0xffff_ffff)
            }
            Attack::NeverAcknowledge => {
                self.queue.stubborn = true;
                self.push([0xff, word, 0, 0], &[])?;
                self.sync(Signal::Poll)
            }
            Attack::MessageAnywhere => {
                self.push(words::sync_interrupt(word & 0x000f_ffff_ffff_fffc, word as u32), &[])?;
                self.sync(Signal::Poll)
            }
        }
    }

    /// Everything that other guests have, by their numbers.
    fn foreign(&mut self, word: u64) -> Result<(), Stopped> {
        let stream = word as u32 % (4 * STREAMS);
        let vmid = (word >> 32 & 0xf) << 32;
        for [first, second, ..] in [words::tlbi_nh_all(), words::tlbi_nh_asid(1), words::tlbi_address(None, 0, false)] {
            self.push([first | vmid, second, 0, 0], &[])?;
        }
        for command in [
            words::cfgi_cd(stream, true),
            words::cfgi_cd_all(stream),
            words::cfgi_ste(stream, true),
            words::prefetch(stream),
            // ATC_INV of everything.
            [0x40 | u64::from(stream) << 32, 52, 0, 0],
        ] {
            self.push(command, &[])?;
        }
        self.sync(Signal::Poll)
    }

    /// Entries, contexts and tables that lead to where the host and the others are.
    fn entry_noise(&mut self, word: u64) -> Result<(), Stopped> {
        let virt_id = self.virt_id(word as u8);
        let at = layout::DEVICE_TABLE + 64 * u64::from(virt_id);
        // Some host physical address: another machine's memory, or the host's tables.
        let host = crate::world::somewhere(word);
        let context = self.iommu.context(Holder::Space(word as usize % 3));
        let ste = match word >> 8 & 7 {
            0 => [1 | 5 << 1 | host & 0x000f_ffff_ffff_ffc0, word, 0, 0],
            1 => [1 | 7 << 1 | context, word, word, host],
            2 => [1 | 6 << 1, 0, word, host],
            3 => [word | 1, word.rotate_left(32), word, host],
            _ => [words::ste_stage_1(context)[0], words::ste_stage_1(context)[1], word, host],
        };
        self.machine.store(at, &ste);
        let mut cd = words::cd(word as u16, RAM + (word >> 16 & 0x7f_f000));
        match word >> 11 & 3 {
            0 => cd[1] = host & 0x000f_ffff_ffff_f000,
            1 => cd[0] ^= 1 << (word & 63),
            _ => {}
        }
        self.machine.store(context, &cd);
        for slot in 0..8 {
            let leaf = (VMSA.leaf)(host & !0xfff, 1, true);
            self.machine.store(RAM + (word >> 16 & 0x7f_f000) + 8 * slot, &[leaf]);
        }
        Smmu::announce(self, virt_id, Scope::One, None)?;
        self.push(words::cfgi_cd(virt_id, true), &[Effect::Contexts { virt_id }])?;
        self.sync(Signal::Poll)
    }

    /// The queue as it was set up, empty.
    fn restart_queue(&mut self) -> Result<(), Stopped> {
        self.machine.write(at::CR0, 4, words::SMMUEN)?;
        self.queue = Queue::new(self.iommu.ring());
        self.machine.write(at::CMDQ_BASE, 8, self.iommu.command_base())?;
        self.machine.write(at::CMDQ_PROD, 4, 0)?;
        self.machine.write(at::CMDQ_CONS, 4, 0)?;
        let gerror = self.machine.read(at::GERROR, 4)?;
        self.machine.write(at::GERRORN, 4, gerror)?;
        self.machine.write(at::CR0, 4, words::SMMUEN | words::EVENTQEN | words::CMDQEN)
    }
}

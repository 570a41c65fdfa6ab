//! The CMDQV's frame: config page, and the queues' pages in their two orders.

use super::vcmdq::Vcmdq;
use crate::spec::{
    CmdqAlloc, Enable, PAGE, Param, SidMatch, VCMDQ_PAGE0, VCMDQ_PAGE1, VCMDQ_STRIDE, VINTF_PAGES, VINTF_STRIDE,
    VintfConfig, VintfStatus, offset, vintf,
};

/// One VINTF's block.
#[derive(Debug, Clone, Default)]
pub(super) struct Vintf {
    pub(super) config: VintfConfig,
    matches: [SidMatch; vintf::SLOTS as usize],
    replaces: [u32; vintf::SLOTS as usize],
}

/// All registers.
pub(super) struct Registers {
    param: Param,
    config: Enable,
    int_mask: [u32; 2],
    alloc: Vec<CmdqAlloc>,
    pub(super) queues: Vec<Vcmdq>,
    vintfs: Vec<Vintf>,
    /// Queues that are enabled, by number: no others are looked at.
    enabled: Vec<usize>,
}

/// A place in the queues' pages.
struct Place {
    queue: usize,
    page1: bool,
    at: u64,
}

impl Vintf {
    /// The StreamID that stands for the guest's.
    pub(super) fn replace(&self, virt_sid: u32) -> Option<u32> {
        let mut slots = self.matches.iter().zip(&self.replaces);
        slots.find(|(slot, _)| slot.enable() && slot.virt_sid() == virt_sid).map(|(_, sid)| *sid)
    }
}

impl Registers {
    pub(super) fn new(param: Param) -> Self {
        let (queues, vintfs) = if param.ver() == 0 { (0, 0) } else { (param.vcmdqs(), param.vintfs()) };
        Self {
            param,
            config: Enable::new(),
            int_mask: [0; 2],
            alloc: vec![CmdqAlloc::new(); queues as usize],
            queues: vec![Vcmdq::default(); queues as usize],
            vintfs: vec![Vintf::default(); vintfs as usize],
            enabled: Vec::new(),
        }
    }

    pub(super) fn param(&self) -> Param {
        self.param
    }

    /// The VINTF whose a queue is.
    pub(super) fn owner(&self, queue: usize) -> Option<(usize, &Vintf)> {
        let alloc = self.alloc.get(queue).filter(|alloc| alloc.allocated())?;
        let vintf = usize::from(alloc.vintf());
        Some((vintf, self.vintfs.get(vintf)?))
    }

    /// Queues that are enabled, by number.
    pub(super) fn enabled(&self) -> &[usize] {
        if self.config.en() { &self.enabled } else { &[] }
    }

    /// Whether errors of a VINTF interrupt.
    pub(super) fn interrupts(&self, vintf: usize) -> bool {
        self.int_mask[vintf / 32 % 2] >> (vintf % 32) & 1 == 0
    }

    /// What queues that rest remember of devices that did not answer is over.
    pub(super) fn forget_late_timeouts(&mut self) {
        self.queues.iter_mut().filter(|queue| !queue.enabled()).for_each(|queue| queue.atc_timed_out = false);
    }

    pub(super) fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 if at.is_multiple_of(4) => self.word(at).into(),
            8 if at.is_multiple_of(8) => u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, at: u64, size: u32, value: u64) {
        match size {
            4 if at.is_multiple_of(4) => self.set_word(at, value as u32),
            8 if at.is_multiple_of(8) => {
                self.set_word(at, value as u32);
                self.set_word(at + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn word(&self, at: u64) -> u32 {
        if self.param.ver() == 0 {
            return 0;
        }
        if at < PAGE {
            return self.config_word(at);
        }
        match self.place(at) {
            Some(Place { queue, page1: false, at }) => self.queues[queue].read0(at),
            Some(Place { queue, page1: true, at }) => self.queues[queue].read1(at),
            None => 0,
        }
    }

    fn set_word(&mut self, at: u64, value: u32) {
        if self.param.ver() == 0 {
            return;
        }
        if at < PAGE {
            return self.set_config_word(at, value);
        }
        match self.place(at) {
            Some(Place { queue, page1: false, at }) => {
                self.queues[queue].write0(at, value);
                match (self.enabled.binary_search(&queue), self.queues[queue].enabled()) {
                    (Err(place), true) => self.enabled.insert(place, queue),
                    (Ok(place), false) => drop(self.enabled.remove(place)),
                    _ => {}
                }
            }
            Some(Place { queue, page1: true, at }) => self.queues[queue].write1(at, value),
            None => {}
        }
    }

    /// The queue whose registers are at `at`. A VINTF's pages show only queues that are given to it.
    fn place(&self, at: u64) -> Option<Place> {
        let (in_page, page1) = match at {
            VCMDQ_PAGE0..VCMDQ_PAGE1 => (at - VCMDQ_PAGE0, false),
            VCMDQ_PAGE1..VINTF_PAGES => (at - VCMDQ_PAGE1, true),
            _ => {
                let (vintf, at) = ((at - VINTF_PAGES) / VINTF_STRIDE, (at - VINTF_PAGES) % VINTF_STRIDE);
                let lvcmdq = at % PAGE / VCMDQ_STRIDE;
                let mine = |alloc: &CmdqAlloc| {
                    alloc.allocated() && u64::from(alloc.vintf()) == vintf && u64::from(alloc.lvcmdq()) == lvcmdq
                };
                let queue = self.alloc.iter().position(mine)?;
                return Some(Place { queue, page1: at >= PAGE, at: at % VCMDQ_STRIDE });
            }
        };
        let queue = (in_page / VCMDQ_STRIDE) as usize;
        (queue < self.queues.len()).then_some(Place { queue, page1, at: in_page % VCMDQ_STRIDE })
    }

    fn config_word(&self, at: u64) -> u32 {
        let index = |first: u64| ((at - first) / 4) as usize;
        match at {
            offset::CONFIG | offset::STATUS => self.config.into_bits(),
            offset::PARAM => self.param.into_bits(),
            offset::VINTF_ERR_MAP..offset::VINTF_INT_MASK => {
                let failed = |vintf: usize| self.lvcmdq_errors(vintf) != 0;
                bits(32 * index(offset::VINTF_ERR_MAP), |vintf| vintf < self.vintfs.len() && failed(vintf))
            }
            offset::VINTF_INT_MASK..offset::CMDQ_ERR_MAP => self.int_mask[index(offset::VINTF_INT_MASK)],
            offset::CMDQ_ERR_MAP..0x34 => bits(32 * index(offset::CMDQ_ERR_MAP), |queue| self.failed(queue)),
            offset::CMDQ_ALLOC..offset::VINTF => {
                self.alloc.get(index(offset::CMDQ_ALLOC)).map_or(0, |alloc| alloc.into_bits())
            }
            offset::VINTF.. => self.vintf_word(at - offset::VINTF),
            _ => 0,
        }
    }

    fn vintf_word(&self, at: u64) -> u32 {
        let number = (at / offset::VINTF_STRIDE) as usize;
        let Some(block) = self.vintfs.get(number) else { return 0 };
        let slots = u64::from(self.param.slots());
        match at % offset::VINTF_STRIDE {
            vintf::CONFIG => block.config.into_bits(),
            vintf::STATUS => VintfStatus::new().with_enabled(block.config.en()).into_bits(),
            at @ vintf::SID_MATCH..vintf::SID_REPLACE if (at - vintf::SID_MATCH) / 4 < slots => {
                block.matches[((at - vintf::SID_MATCH) / 4) as usize].into_bits()
            }
            at @ vintf::SID_REPLACE..vintf::LVCMDQ_ERR_MAP if (at - vintf::SID_REPLACE) / 4 < slots => {
                block.replaces[((at - vintf::SID_REPLACE) / 4) as usize]
            }
            at @ vintf::LVCMDQ_ERR_MAP..0xd0 => {
                (self.lvcmdq_errors(number) >> (8 * (at - vintf::LVCMDQ_ERR_MAP))) as u32
            }
            _ => 0,
        }
    }

    fn set_config_word(&mut self, at: u64, value: u32) {
        match at {
            offset::CONFIG => self.config = Enable::from_bits(value & 1),
            offset::VINTF_INT_MASK..offset::CMDQ_ERR_MAP => {
                self.int_mask[((at - offset::VINTF_INT_MASK) / 4) as usize] = value;
            }
            offset::CMDQ_ALLOC..offset::VINTF => {
                if let Some(alloc) = self.alloc.get_mut(((at - offset::CMDQ_ALLOC) / 4) as usize) {
                    *alloc = CmdqAlloc::from_bits(value & 0x001f_80ff);
                }
            }
            offset::VINTF.. => self.set_vintf_word(at - offset::VINTF, value),
            _ => {}
        }
    }

    fn set_vintf_word(&mut self, at: u64, value: u32) {
        let slots = u64::from(self.param.slots());
        let Some(block) = self.vintfs.get_mut((at / offset::VINTF_STRIDE) as usize) else { return };
        match at % offset::VINTF_STRIDE {
            vintf::CONFIG => block.config = VintfConfig::from_bits(value & 0x3_ffff),
            at @ vintf::SID_MATCH..vintf::SID_REPLACE if (at - vintf::SID_MATCH) / 4 < slots => {
                block.matches[((at - vintf::SID_MATCH) / 4) as usize] = SidMatch::from_bits(value & 0x1f_ffff);
            }
            at @ vintf::SID_REPLACE..vintf::LVCMDQ_ERR_MAP if (at - vintf::SID_REPLACE) / 4 < slots => {
                block.replaces[((at - vintf::SID_REPLACE) / 4) as usize] = value;
            }
            _ => {}
        }
    }

    fn failed(&self, queue: usize) -> bool {
        self.queues.get(queue).is_some_and(Vcmdq::in_error)
    }

    /// LVCMDQ_ERR_MAP of a VINTF.
    fn lvcmdq_errors(&self, vintf: usize) -> u128 {
        let mine = |alloc: &CmdqAlloc| alloc.allocated() && usize::from(alloc.vintf()) == vintf;
        let failed = self.alloc.iter().enumerate().filter(|(queue, alloc)| mine(alloc) && self.failed(*queue));
        failed.fold(0, |map, (_, alloc)| map | 1 << alloc.lvcmdq())
    }
}

/// 32 bits of a map, from number `first`.
fn bits(first: usize, set: impl Fn(usize) -> bool) -> u32 {
    (0..32).fold(0, |map, bit| map | u32::from(set(first + bit)) << bit)
}

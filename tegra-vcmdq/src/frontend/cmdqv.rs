//! The guest's CMDQV: what of it is not hardware.

use crate::spec::{
    CMDQV, CMDQV_LINE, CmdqAlloc, Enable, PAGE, Param, VCMDQ_PAGE1, VCMDQ_STRIDE, VINTF_PAGES, VcmdqBase, VintfConfig,
    VintfStatus, offset, page1, vintf, vintf_page1,
};
use viommu_plugin::{Actions, Effects, HwQueueKind, HwQueueRequest, Refusal, Register};

/// PARAM as a guest is shown it.
///
/// # Errors
/// EOPNOTSUPP if it promises more than one VINTF, or more queues than an error map has bits.
pub fn shown(registers: &[Register]) -> Result<Param, Refusal> {
    let listed = registers.iter().find(|register| register.offset == CMDQV + offset::PARAM);
    let param = listed.map_or(Param::MODEL.of_one_vintf(), |register| Param::from_bits(register.value as u32));
    if param.ver() == 0 {
        return Ok(Param::new());
    }
    if param.num_vintf_log2() != 0 {
        let text = format!("CMDQV PARAM.NUM_VINTF_LOG2 is {}: a guest has one VINTF", param.num_vintf_log2());
        return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
    }
    if param.num_vcmdq_log2() > 7 {
        let text = format!("CMDQV PARAM.NUM_VCMDQ_LOG2 is {}: at most 7", param.num_vcmdq_log2());
        return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
    }
    Ok(param)
}

/// Whether a CMDQV that offers `offered` serves a guest that was shown `shown`.
///
/// # Errors
/// The field in which it falls short, by name.
pub fn covers(offered: Param, shown: Param) -> Result<(), Refusal> {
    let fields = [
        ("VER", shown.ver(), offered.ver(), shown.ver() == offered.ver()),
        ("NUM_VCMDQ_LOG2", shown.num_vcmdq_log2(), offered.num_vcmdq_log2(), {
            shown.num_vcmdq_log2() <= offered.num_vcmdq_log2()
        }),
        ("NUM_SID_PER_VM_LOG2", shown.num_sid_log2(), offered.num_sid_log2(), {
            shown.num_sid_log2() <= offered.num_sid_log2()
        }),
    ];
    match fields.into_iter().find(|(.., covered)| shown.ver() != 0 && !covered) {
        None => Ok(()),
        Some((name, shown, here, _)) => {
            let text = format!("CMDQV PARAM.{name}: the guest was shown {shown}, this host has {here}");
            Err(Refusal::new(Refusal::EOPNOTSUPP, text))
        }
    }
}

/// The register's name at `at` in the CMDQV's frame.
pub(super) fn register_name(at: u64) -> Option<&'static str> {
    Some(match at {
        offset::CONFIG => "CMDQV_CONFIG",
        offset::PARAM => "CMDQV_PARAM",
        offset::STATUS => "CMDQV_STATUS",
        offset::VINTF_ERR_MAP => "CMDQV_VINTF_ERR_MAP",
        offset::VINTF_INT_MASK => "CMDQV_VINTF_INT_MASK",
        offset::CMDQ_ERR_MAP => "CMDQV_CMDQ_ERR_MAP",
        offset::CMDQ_ALLOC..offset::VINTF if at.is_multiple_of(4) => "CMDQV_CMDQ_ALLOC",
        VINTF_CONFIG => "VINTF0_CONFIG",
        VINTF_STATUS => "VINTF0_STATUS",
        _ => return None,
    })
}

const VINTF_CONFIG: u64 = offset::VINTF + vintf::CONFIG;
const VINTF_STATUS: u64 = offset::VINTF + vintf::STATUS;
/// Bits of CMDQ_ALLOC that hold a value.
pub(super) const ALLOC_BITS: u32 = 0x001f_80ff;
/// Bits of VINTF_CONFIG that hold a value: not HYP_OWN, by whose 0 a driver knows that it is a guest.
pub(super) const VINTF_BITS: u32 = 0x1_ffff;
/// Bits of BASE that hold a value.
pub(super) const BASE_BITS: u64 = 0x0000_ffff_ffff_ffff;

/// One queue, as far as it is not hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) alloc: CmdqAlloc,
    pub(super) base: VcmdqBase,
}

/// The registers.
#[derive(Debug, Clone)]
pub(super) struct GuestCmdqv {
    param: Param,
    pub(super) config: Enable,
    pub(super) int_mask: [u32; 2],
    pub(super) vintf: VintfConfig,
    /// LVCMDQ_ERR_MAP as it was last reported.
    pub(super) errors: u128,
    pub(super) queues: Vec<Queue>,
}

impl GuestCmdqv {
    pub(super) fn new(param: Param) -> Self {
        let queues = if param.ver() == 0 { 0 } else { param.vcmdqs() };
        Self {
            param,
            config: Enable::new(),
            int_mask: [0; 2],
            vintf: VintfConfig::new(),
            errors: 0,
            queues: vec![Queue::default(); queues as usize],
        }
    }

    pub(super) fn param(&self) -> Param {
        self.param
    }

    pub(super) fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 if at.is_multiple_of(4) => self.word(at).into(),
            8 if at.is_multiple_of(8) => u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, at: u64, size: u32, value: u64) -> Effects {
        let before = self.queues.clone();
        match size {
            4 if at.is_multiple_of(4) => self.set_word(at, value as u32),
            8 if at.is_multiple_of(8) => {
                self.set_word(at, value as u32);
                self.set_word(at + 4, (value >> 32) as u32);
            }
            _ => {}
        }
        let actions = if before == self.queues { 0 } else { Actions::HW_QUEUES };
        Effects { actions: Actions(actions), ..Effects::default() }
    }

    fn word(&self, at: u64) -> u32 {
        if self.param.ver() == 0 {
            return 0;
        }
        let errors = |word: u64| (self.errors >> (32 * word)) as u32;
        match at {
            offset::CONFIG | offset::STATUS => self.config.into_bits(),
            offset::PARAM => self.param.into_bits(),
            offset::VINTF_ERR_MAP => u32::from(self.errors != 0),
            offset::VINTF_INT_MASK..offset::CMDQ_ERR_MAP => self.int_mask[((at - offset::VINTF_INT_MASK) / 4) as usize],
            offset::CMDQ_ERR_MAP..0x34 => errors((at - offset::CMDQ_ERR_MAP) / 4),
            offset::CMDQ_ALLOC..offset::VINTF => {
                let queue = self.queues.get(((at - offset::CMDQ_ALLOC) / 4) as usize);
                queue.map_or(0, |queue| queue.alloc.into_bits())
            }
            VINTF_CONFIG => self.vintf.into_bits(),
            VINTF_STATUS => VintfStatus::new().with_enabled(self.vintf.en()).into_bits(),
            ERRORS..ERRORS_END => errors((at - ERRORS) / 4),
            _ => match self.base_at(at) {
                Some((queue, high)) => (self.queues[queue].base.into_bits() >> if high { 32 } else { 0 }) as u32,
                None => 0,
            },
        }
    }

    fn set_word(&mut self, at: u64, value: u32) {
        if self.param.ver() == 0 {
            return;
        }
        match at {
            offset::CONFIG => self.config = Enable::from_bits(value & 1),
            offset::VINTF_INT_MASK..offset::CMDQ_ERR_MAP => {
                self.int_mask[((at - offset::VINTF_INT_MASK) / 4) as usize] = value;
            }
            offset::CMDQ_ALLOC..offset::VINTF => {
                if let Some(queue) = self.queues.get_mut(((at - offset::CMDQ_ALLOC) / 4) as usize) {
                    queue.alloc = CmdqAlloc::from_bits(value & ALLOC_BITS);
                }
            }
            VINTF_CONFIG => self.vintf = VintfConfig::from_bits(value & VINTF_BITS),
            _ => {
                if let Some((queue, high)) = self.base_at(at) {
                    let (old, shift) = (self.queues[queue].base.into_bits(), if high { 32 } else { 0 });
                    let new = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
                    self.queues[queue].base = VcmdqBase::from_bits(new & BASE_BITS);
                    // The queue that failed is no more.
                    self.errors &= !(1 << queue);
                }
            }
        }
    }

    /// The queue whose BASE is at `at`, and whether it is the high half. Both views show the same queues: there is one
    /// VINTF, and queue n is its LVCMDQ n.
    fn base_at(&self, at: u64) -> Option<(usize, bool)> {
        let in_page = match at {
            VCMDQ_PAGE1..VINTF_PAGES => at - VCMDQ_PAGE1,
            _ => at.checked_sub(vintf_page1(0)).filter(|at| *at < PAGE)?,
        };
        let queue = (in_page / VCMDQ_STRIDE) as usize;
        let half = in_page % VCMDQ_STRIDE;
        (queue < self.queues.len() && half & !4 == page1::BASE).then_some((queue, half != page1::BASE))
    }

    /// LVCMDQ_ERR_MAP as hardware says it is: an interrupt, unless the guest masked it.
    pub(super) fn queue_errors(&mut self, record: &[u64]) -> Effects {
        let mut effects = Effects::default();
        let &[low, high, ..] = record else { return effects };
        let queues = 1u128.checked_shl(self.queues.len() as u32).map_or(u128::MAX, |end| end - 1);
        self.errors = (u128::from(low) | u128::from(high) << 64) & queues;
        if self.errors != 0 && self.int_mask[0] & 1 == 0 {
            effects.lines |= 1 << CMDQV_LINE;
        }
        effects
    }

    /// Queues that are allocated to VINTF 0 and have a base, ascending.
    pub(super) fn requests(&self, out: &mut [HwQueueRequest]) -> usize {
        let asked = self.queues.iter().enumerate().filter(|(index, queue)| {
            let mine = queue.alloc.allocated() && queue.alloc.vintf() == 0;
            mine && usize::from(queue.alloc.lvcmdq()) == *index && queue.base.addr() != 0
        });
        let request = |(index, queue): (usize, &Queue)| HwQueueRequest {
            kind: HwQueueKind::COMMAND,
            index: index as u32,
            iova: queue.base.address(),
            length: queue.base.bytes(),
        };
        let mut count = 0;
        for asked in asked.map(request) {
            if let Some(slot) = out.get_mut(count) {
                *slot = asked;
            }
            count += 1;
        }
        count
    }
}

const ERRORS: u64 = offset::VINTF + vintf::LVCMDQ_ERR_MAP;
const ERRORS_END: u64 = ERRORS + 16;

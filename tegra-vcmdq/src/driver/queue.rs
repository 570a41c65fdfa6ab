//! LVCMDQs: in ascending order given, in descending order taken back.

use super::TegraDriver;
use super::bring_up::{place, poll};
use crate::spec::{CMDQ_ERR, CMDQV, Enable, VCMDQ_PAGE0, VCMDQ_PAGE1, VCMDQ_STRIDE, VcmdqBase, offset, page0, page1};
use arm_smmuv3::spec::commands::{COMMAND_BYTES, Opcode, Sync};
use viommu_plugin::{HwQueueKind, HwQueueRequest, Refusal};

/// The smallest queue: BASE has no address bits below it.
const BYTES_MIN: u64 = 32;

fn invalid(text: String) -> Refusal {
    Refusal::new(Refusal::EINVAL, text)
}

impl TegraDriver {
    /// In the order in which Linux checks it. The guest enables the queue itself.
    pub(super) fn create_queue(&mut self, vintf: u32, queue: &HwQueueRequest, pa: u64) -> Result<u32, Refusal> {
        let &HwQueueRequest { kind, index, length, .. } = queue;
        let (per_vintf, log2_most) = (self.cmdqv()?.param.per_vintf(), u32::from(self.smmu.command_queue_log2()));
        let allocated = self.interface(vintf)?.queues;
        if kind != HwQueueKind::COMMAND {
            return Err(Refusal::new(Refusal::EOPNOTSUPP, "a VINTF has command queues and no others"));
        }
        if index >= per_vintf {
            return Err(invalid(format!("LVCMDQ {index}: a VINTF has {per_vintf}")));
        }
        if index < allocated {
            return Err(Refusal::new(Refusal::EEXIST, format!("LVCMDQ {index} of VINTF {vintf} is in use")));
        }
        if index > allocated {
            let text = format!("LVCMDQ {index} of VINTF {vintf}: LVCMDQ {} comes first", index - 1);
            return Err(Refusal::new(Refusal::EIO, text));
        }
        if !length.is_power_of_two() || length < BYTES_MIN || length > COMMAND_BYTES << log2_most {
            return Err(invalid(format!("a queue of {length:#x} bytes: 2^n from 32 to 2^{}", log2_most + 4)));
        }
        if !pa.is_multiple_of(length) || pa & !VcmdqBase::ADDRESS != 0 {
            return Err(invalid(format!("a queue of {length:#x} bytes cannot be at {pa:#x}")));
        }
        let global = vintf * per_vintf + index;
        self.allocate(global, true)?;
        if let Err(refusal) = self.clear(global) {
            self.allocate(global, false)?;
            return Err(refusal);
        }
        let base = VcmdqBase::new().with_addr(pa >> 5).with_log2size((length / COMMAND_BYTES).ilog2() as u8);
        self.write_base(global, page1::BASE, base.into_bits());
        self.interface(vintf)?.queues = index + 1;
        Ok(global)
    }

    /// Off; then a SYNC on the SMMU's own queue, behind which no device of this guest can be late with an answer that
    /// the next owner would be blamed for; then clear.
    pub(super) fn destroy_queue(&mut self, global: u32) -> Result<(), Refusal> {
        let per_vintf = self.cmdqv()?.param.per_vintf();
        let (vintf, index) = (global / per_vintf, global % per_vintf);
        let allocated = self.interface(vintf)?.queues;
        if index >= allocated {
            return Err(Refusal::new(Refusal::ENOENT, format!("LVCMDQ {index} of VINTF {vintf} is not in use")));
        }
        if index + 1 < allocated {
            return Err(Refusal::new(Refusal::EBUSY, format!("LVCMDQ {} of VINTF {vintf} goes first", index + 1)));
        }
        self.disable(global)?;
        // A SYNC that fails is the late answer itself, and the host's queue is repaired by the host.
        let _ = self.smmu.hardware().issue(&Sync::new().with_opcode(Opcode::SYNC.0).words());
        self.clear(global)?;
        self.allocate(global, false)?;
        self.interface(vintf)?.queues = index;
        Ok(())
    }

    /// As after power-on: off, empty, without base and without an error.
    fn clear(&self, global: u32) -> Result<(), Refusal> {
        self.disable(global)?;
        let at = |register| VCMDQ_PAGE0 + VCMDQ_STRIDE * u64::from(global) + register;
        self.write(at(page0::PROD), 0);
        self.write(at(page0::CONS), 0);
        self.write_base(global, page1::BASE, 0);
        self.write_base(global, page1::CONS_INDX_BASE, 0);
        let gerror = self.read(at(page0::GERROR));
        if (gerror ^ self.read(at(page0::GERRORN))) & CMDQ_ERR != 0 {
            self.write(at(page0::GERRORN), gerror);
        }
        Ok(())
    }

    fn disable(&self, global: u32) -> Result<(), Refusal> {
        let at = VCMDQ_PAGE0 + VCMDQ_STRIDE * u64::from(global);
        self.write(at + page0::CONFIG, 0);
        let off = |status| !Enable::from_bits(status).en();
        poll(self.smmu.hardware(), at + page0::STATUS, off, &format!("VCMDQ {global} does not stop"))
    }

    /// Whether the VINTF's pages show the queue.
    fn allocate(&self, global: u32, allocated: bool) -> Result<(), Refusal> {
        let alloc = place(self.cmdqv()?.param, global).with_allocated(allocated);
        self.write(offset::CMDQ_ALLOC + 4 * u64::from(global), alloc.into_bits());
        Ok(())
    }

    fn write_base(&self, global: u32, register: u64, value: u64) {
        let at = CMDQV + VCMDQ_PAGE1 + VCMDQ_STRIDE * u64::from(global) + register;
        self.smmu.hardware().mmio_write(at, 8, value);
    }
}

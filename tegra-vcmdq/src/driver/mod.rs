//! Programs one physical SMMUv3 with a CMDQV: all of [`ArmDriver`], and what guests drive themselves.
//!
//! An SMMU whose CMDQV does not answer, or that has none, is an SMMU: guests are refused an interface (EOPNOTSUPP) and
//! their commands go the usual way. VINTF 0 stays the host's.

mod bring_up;
mod interface;
mod queue;

use crate::spec::{CMDQV, CMDQV_LINE, Param, offset, vintf};
use arm_smmuv3::driver::ArmDriver;
use std::collections::VecDeque;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, EventOwner, Hardware, HostEvent, HostInvalidation, HwQueueRequest, QueueFault,
    Refusal, Register, TranslationMode, VirtualInterface,
};

/// Register reads before "does not answer": about a second.
const POLLS: u32 = 1 << 20;

/// The driver of one physical SMMU and the CMDQV beside it.
pub struct TegraDriver {
    smmu: ArmDriver,
    /// `None`: it is an SMMU and nothing more.
    cmdqv: Option<Cmdqv>,
    /// Errors of guests' queues that nobody took yet; one of each VINTF at most.
    errors: VecDeque<HostEvent>,
}

/// What this driver gave to whom.
struct Cmdqv {
    param: Param,
    /// By number; 0 is the host's and stays `None`.
    vintfs: Vec<Option<Interface>>,
}

/// A VINTF that is a guest's.
struct Interface {
    /// The guest's StreamID in each slot.
    slots: Vec<Option<u32>>,
    /// Queues allocated: 0 to this, as they come and go in order.
    queues: u32,
}

impl TegraDriver {
    /// Takes over both.
    ///
    /// # Errors
    /// As [`ArmDriver::new`].
    pub fn new(hardware: Box<dyn Hardware>) -> Result<Self, Refusal> {
        let smmu = ArmDriver::new(hardware)?;
        let cmdqv = Cmdqv::take_over(smmu.hardware());
        Ok(Self { smmu, cmdqv, errors: VecDeque::new() })
    }

    fn cmdqv(&self) -> Result<&Cmdqv, Refusal> {
        self.cmdqv.as_ref().ok_or_else(|| Refusal::new(Refusal::EOPNOTSUPP, "this SMMU has no CMDQV"))
    }

    fn interface(&mut self, vintf: u32) -> Result<&mut Interface, Refusal> {
        let found = self.cmdqv.as_mut().and_then(|cmdqv| cmdqv.vintfs.get_mut(vintf as usize)?.as_mut());
        found.ok_or_else(|| Refusal::new(Refusal::ENOENT, format!("VINTF {vintf} is nobody's")))
    }

    fn read(&self, at: u64) -> u32 {
        self.smmu.hardware().mmio_read(CMDQV + at, 4) as u32
    }

    fn write(&self, at: u64, value: u32) {
        self.smmu.hardware().mmio_write(CMDQV + at, 4, value.into());
    }

    /// Reads LVCMDQ_ERR_MAP of every guest's VINTF that has errors. The host neither acknowledges nor repairs them: the
    /// queues are the guests'.
    fn queue_errors(&mut self) {
        let Some(cmdqv) = &self.cmdqv else { return };
        let vintfs = cmdqv.vintfs.len() as u32;
        let mine: Vec<bool> = cmdqv.vintfs.iter().map(Option::is_some).collect();
        for word in 0..vintfs.div_ceil(32) {
            let mut map = self.read(offset::VINTF_ERR_MAP + 4 * u64::from(word));
            while map != 0 {
                let vintf = 32 * word + map.trailing_zeros();
                map &= map - 1;
                if mine.get(vintf as usize) == Some(&true) {
                    self.report(vintf);
                }
            }
        }
    }

    fn report(&mut self, vintf: u32) {
        let block = offset::VINTF + offset::VINTF_STRIDE * u64::from(vintf);
        let word = |number: u64| u64::from(self.read(block + vintf::LVCMDQ_ERR_MAP + 4 * number));
        let map = [word(0) | word(1) << 32, word(2) | word(3) << 32];
        let mut event = HostEvent { owner: EventOwner::INTERFACE, stream: vintf, words: 2, ..HostEvent::default() };
        event.record[..2].copy_from_slice(&map);
        match self.errors.iter_mut().find(|other| other.stream == vintf) {
            Some(other) => (0..2).for_each(|at| other.record[at] |= map[at]),
            None => self.errors.push_back(event),
        }
    }
}

impl Driver for TegraDriver {
    fn info(&self) -> DriverInfo {
        self.smmu.info()
    }

    /// The SMMU's, and what a guest sees of the CMDQV: one VINTF.
    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        let mut registers = self.smmu.guest_registers(mode);
        if registers.is_empty() {
            return registers;
        }
        let param = self.cmdqv.as_ref().map_or(Param::new(), |cmdqv| cmdqv.param.of_one_vintf());
        registers.push(Register { offset: CMDQV + offset::PARAM, value: param.into_bits().into() });
        registers
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        self.smmu.stage2_create(tag)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        self.smmu.stage2_map(stage2, ipa, pa, len, access)
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        self.smmu.stage2_unmap(stage2, ipa, len)
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        self.smmu.stage2_destroy(stage2);
    }

    fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        self.smmu.attach(stream, stage2, tag, key)
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        self.smmu.detach(stream)
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        self.smmu.encode(what, out)
    }

    fn queue_fault(&mut self) -> Option<QueueFault> {
        self.smmu.queue_fault()
    }

    fn queue_resume(&mut self) {
        self.smmu.queue_resume();
    }

    fn event(&mut self) -> Option<HostEvent> {
        self.errors.pop_front().or_else(|| self.smmu.event())
    }

    fn interrupt(&mut self, line: u32) {
        if line == CMDQV_LINE {
            self.queue_errors();
        }
    }

    fn interface_create(&mut self, stage2: u32) -> Result<VirtualInterface, Refusal> {
        self.create(stage2)
    }

    fn interface_destroy(&mut self, interface: u32) -> Result<(), Refusal> {
        self.destroy(interface)
    }

    fn interface_stream_set(&mut self, interface: u32, virt_id: u32, stream: u32) -> Result<(), Refusal> {
        self.set_stream(interface, virt_id, stream)
    }

    fn interface_stream_clear(&mut self, interface: u32, virt_id: u32) -> Result<(), Refusal> {
        self.clear_stream(interface, virt_id)
    }

    fn hw_queue_create(&mut self, interface: u32, queue: &HwQueueRequest, pa: u64) -> Result<u32, Refusal> {
        self.create_queue(interface, queue, pa)
    }

    fn hw_queue_destroy(&mut self, queue: u32) -> Result<(), Refusal> {
        self.destroy_queue(queue)
    }
}

//! A VMM that emulates the registers itself: it hears of everything that a frontend would have shown the guest.

use crate::direct::machine;
use crate::guest::{self, CD_1, RAM, RAM_SIZE, STE_STAGE_1};
use arm_smmuv3::features::Features;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use viommu::backend::direct::DirectOptions;
use viommu::backend::{Backing, Mapping};
use viommu::objects::ViommuConfig;
use viommu::pipeline::{Interrupts, Invalidated};
use viommu::plugin::{GuestFault, Register, Status};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend};

const HOST_RAM: u64 = 0x8000_0000;
/// EATS: the device caches translations.
const STE_ATS: u64 = 1 << 28;
/// ATC_INV of everything of guest stream 3; TLBI_NH_ASID of ASID 1.
const ATC_INV: [u64; 2] = [0x40 | 3 << 32, 52];
const TLBI: [u64; 2] = [0x11 | 1 << 48, 0];

struct Events(mpsc::Sender<(u32, Vec<u64>)>);

impl Interrupts for Events {
    fn msi(&self, _address: u64, _data: u32) {}
    fn line(&self, _line: u32) {}
    fn event(&self, virt_id: u32, record: &[u64]) {
        self.0.send((virt_id, record.to_vec())).unwrap();
    }
}

#[test]
fn it_gets_its_guests_faults_and_its_devices_silence_as_answers() {
    let machine = machine(DirectOptions::default());
    let memory = guest::memory();
    machine.physical.add_region(HOST_RAM, memory.find_region(GuestAddress(RAM)).unwrap().get_mmap()).unwrap();
    let ioas = machine.host.ioas().unwrap();
    let backing = Backing::Physical(HOST_RAM);
    ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }).unwrap();
    let (sender, events) = mpsc::channel();
    let idr0 = Features::default().idr0.with_ats(true).into_bits();
    let registers = vec![Register { offset: 0, value: idr0.into() }];
    let interrupts = Arc::new(Events(sender));
    let config = ViommuConfig { frontend: false, interrupts, ..ViommuConfig::new(registers, memory) };
    let viommu = ioas.nest_parent().unwrap().viommu(config).unwrap();
    let device = machine.host.device(0x40).unwrap();
    let _vdevice = viommu.vdevice(&device, 3).unwrap();
    viommu.install_entry(3, &[STE_STAGE_1 | CD_1, 2 | STE_ATS, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(machine.dma(0x40, 0x1234).output, HOST_RAM + 0x1234);

    // A fault of the guest's stage 1: F_TRANSLATION at that address, the stream's field left to the VMM.
    assert_eq!(machine.dma(0x40, 0x8000_0000).status, Status::FAULT);
    let (virt_id, record) = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((virt_id, record[0], record[2]), (3, 0x10, 0x8000_0000));

    // A device that does not answer: the guest's error, CERROR_ATC_INV_SYNC, not ours. It may go on afterwards.
    machine.model.atc_unresponsive(0x40, true).unwrap();
    let done = viommu.invalidate(&[TLBI, ATC_INV].concat()).unwrap();
    assert_eq!(done, Invalidated { handled: 0, fault: GuestFault::ATC_TIMEOUT });
    machine.model.atc_unresponsive(0x40, false).unwrap();
    let done = viommu.invalidate(&[TLBI, ATC_INV].concat()).unwrap();
    assert_eq!(done, Invalidated { handled: 2, fault: GuestFault::NONE });
    // What the guest may not send is found before it reaches the hardware.
    let done = viommu.invalidate(&[TLBI, [0xfe, 0]].concat()).unwrap();
    assert_eq!(done, Invalidated { handled: 1, fault: GuestFault::ILLEGAL_OPCODE });
}

//! A plugin that panics: the guest for whom it did is out of service, and only this one.

use crate::guest::{CD_1, STE_STAGE_1, SYNC};
use crate::world::{ABT, DEVICE, Setup, Vm, World, eventually};
use arm_smmuv3::ArmSmmuv3;
use arm_smmuv3::codec::ArmCodec;
use viommu::HostEvent;
use viommu::backend::ObjectKind;
use viommu::objects::ObjectState;
use viommu::plugin::{
    Classes, Codec, Configuration, EntryKey, Hardware, HostIds, Message, ModelConfig, ModelHost, Refusal, Register,
    Rewritten, Status, Vendor, VendorInfo,
};
use viommu::vm_memory::{Bytes, GuestAddress};
use viommu_plugin_host::Plugin;

/// The Arm SMMUv3 with three mistakes in its codec.
struct Fragile;

struct FragileCodec(ArmCodec);

/// TLBI_NH_VA of an address, CFGI_STE_RANGE of a stream, and an STE.Word2 that it cannot stand.
const BOMB_ADDRESS: u64 = 0xdead_0000_0000_0000;
const BOMB_STREAM: u64 = 0xdead << 32;
const BOMB_WORD2: u64 = 0xdead;

impl Vendor for Fragile {
    const INFO: VendorInfo = VendorInfo { name: "fragile", ..ArmSmmuv3::INFO };
    type Frontend = <ArmSmmuv3 as Vendor>::Frontend;
    type Codec = FragileCodec;
    type Driver = <ArmSmmuv3 as Vendor>::Driver;
    type Model = <ArmSmmuv3 as Vendor>::Model;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        ArmSmmuv3::frontend(registers)
    }
    fn codec(registers: &[Register]) -> Result<FragileCodec, Refusal> {
        ArmSmmuv3::codec(registers).map(FragileCodec)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        ArmSmmuv3::driver(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        ArmSmmuv3::model(host, config)
    }
}

impl Codec for FragileCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        assert!(!guest.contains(&BOMB_ADDRESS), "planned: rewrite");
        self.0.rewrite(guest, before, ids, out)
    }
    fn configuration(&self, command: &[u64]) -> Configuration {
        assert!(command[0] >> 32 != BOMB_STREAM >> 32, "planned: configuration");
        self.0.configuration(command)
    }
    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        assert!(entry[2] != BOMB_WORD2, "planned: entry_key");
        self.0.entry_key(entry)
    }
    fn opcode(&self, command: &[u64]) -> u8 {
        self.0.opcode(command)
    }
    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        self.0.opcode_name(opcode)
    }
    fn describe(&self, command: &[u64], text: &mut Message) {
        self.0.describe(command, text);
    }
}

fn world() -> World {
    World::with(Setup { plugin: Plugin::linked::<Fragile>(), ..Setup::default() })
}

/// Nothing of this guest passes any more, and nothing it does changes that.
fn is_out_of_service(world: &World, vm: &Vm, events: &flume::Receiver<HostEvent>) {
    assert!(vm.viommu.pipeline().is_quarantined());
    eventually("its device aborts", || world.dma(vm, 0x1234).status == Status::ABORT);
    let state = || world.host.objects().into_iter().find(|object| object.id == vm.viommu.id()).unwrap().state;
    eventually("the object says so", || state() == ObjectState::Quarantined);
    let id = vm.viommu.id();
    let out = |event| matches!(event, HostEvent::Quarantined { kind: ObjectKind::Viommu, id: of, .. } if of == id);
    eventually("whoever runs the host is told", || events.drain().any(out));
    let cons = vm.cons();
    vm.guest.send(&[SYNC]);
    assert_eq!(vm.cons(), cons, "its queue is not served");
    assert_eq!(world.dma(vm, 0x1234).status, Status::ABORT);
}

#[test]
fn in_a_rewrite() {
    let world = world();
    let events = world.host.events();
    world.trouble(|a| {
        let cons = a.cons();
        a.guest.send(&[SYNC, [0x12 | 1 << 48, BOMB_ADDRESS], SYNC]);
        assert!(a.cons() <= cons + 1, "the command that it could not stand is not passed");
        is_out_of_service(&world, a, &events);
    });
}

#[test]
fn in_the_scope_of_a_configuration_command() {
    let world = world();
    let events = world.host.events();
    world.trouble(|a| {
        a.guest.send(&[[4 | BOMB_STREAM, 0], SYNC]);
        is_out_of_service(&world, a, &events);
    });
}

/// In the control plane: the guest's command fails; its codec is dead, so that the next one ends its service.
#[test]
fn in_a_table_entry() {
    let world = world();
    let events = world.host.events();
    world.trouble(|a| {
        let (cons, device) = (a.cons(), u64::from(DEVICE));
        a.memory.write_obj(BOMB_WORD2.to_le(), GuestAddress(crate::guest::RAM + 0x1_0000 + 64 * device + 16)).unwrap();
        a.guest.set_ste(device, STE_STAGE_1 | CD_1);
        assert_eq!((a.error(), a.cons()), (ABT, cons));
        a.guest.acknowledge();
        is_out_of_service(&world, a, &events);
    });
}

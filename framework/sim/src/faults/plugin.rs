//! A vendor's plugin that panics in the n-th call for one machine, around one that does not.
//!
//! Which machine a call is for, the plugin tells by a register that no IOMMU has.

use super::driver::Watching;
use crate::guest::machine_of;
use crate::plan::{Fault, Part};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use viommu::simulation;
use viommu_plugin::{
    Classes, Codec, Configuration, Effects, EntryKey, Frontend, GuestFault, GuestMemory, GuestQueue, Hardware, HostIds,
    Lookup, Message, Mode, ModelConfig, ModelHost, Refusal, Register, Rewritten, Vendor, VendorInfo,
};
use viommu_plugin::{GuestMapping, GuestTraits, ShadowRange, TranslationMode, Walked};

thread_local! {
    /// A world is one thread, and so are its panics.
    static PANICS: RefCell<Panics> = RefCell::default();
}

#[derive(Default)]
struct Panics {
    planned: Vec<Fault>,
    calls: BTreeMap<(u32, bool), u32>,
    struck: u64,
}

/// Sets what panics from now on; how many panics struck before.
pub(crate) fn plan_panics(faults: &[Fault]) -> u64 {
    let planned = faults.iter().filter(|fault| matches!(fault, Fault::Plugin { .. })).copied().collect();
    PANICS.replace(Panics { planned, ..Panics::default() }).struck
}

/// Panics if the plan says so.
fn call(machine: u32, part: Part) {
    let strikes = PANICS.with_borrow_mut(|panics| {
        let calls = panics.calls.entry((machine, part == Part::Codec)).or_default();
        *calls += 1;
        let now = Fault::Plugin { vm: machine, part, nth: *calls };
        let strikes = panics.planned.contains(&now);
        panics.struck += u64::from(strikes);
        strikes
    });
    if strikes {
        simulation::note(|| format!("the plugin panics for VM {machine}"));
        panic!("planned panic of the plugin's {part:?} for VM {machine}");
    }
}

/// The vendor.
pub(crate) struct Panicking<V>(PhantomData<V>);

/// A part of it, for one machine.
pub(crate) struct Of<P> {
    machine: u32,
    part: P,
}

impl<V: Vendor> Vendor for Panicking<V> {
    const INFO: VendorInfo = V::INFO;
    type Frontend = Of<V::Frontend>;
    type Codec = Of<V::Codec>;
    type Driver = Watching<V::Driver>;
    type Model = V::Model;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        Ok(Of { machine: machine_of(registers), part: V::frontend(registers)? })
    }
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        Ok(Of { machine: machine_of(registers), part: V::codec(registers)? })
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        V::driver(hardware).map(Watching::new)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        V::model(host, config)
    }
}

impl<P: Codec> Codec for Of<P> {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        call(self.machine, Part::Codec);
        self.part.rewrite(guest, before, ids, out)
    }
    fn configuration(&self, command: &[u64]) -> Configuration {
        call(self.machine, Part::Codec);
        self.part.configuration(command)
    }
    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        call(self.machine, Part::Codec);
        self.part.entry_key(entry)
    }
    fn mode(&self) -> TranslationMode {
        self.part.mode()
    }
    fn traits(&self) -> GuestTraits {
        self.part.traits()
    }
    fn shadow_range(&self, command: &[u64]) -> ShadowRange {
        call(self.machine, Part::Codec);
        self.part.shadow_range(command)
    }
    fn walk(
        &self,
        key: &EntryKey,
        memory: &dyn GuestMemory,
        first: u64,
        last: u64,
        out: &mut [GuestMapping],
    ) -> Walked {
        call(self.machine, Part::Codec);
        self.part.walk(key, memory, first, last, out)
    }
    fn opcode(&self, command: &[u64]) -> u8 {
        self.part.opcode(command)
    }
    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        self.part.opcode_name(opcode)
    }
    fn describe(&self, command: &[u64], text: &mut Message) {
        self.part.describe(command, text);
    }
}

impl<P: Frontend> Frontend for Of<P> {
    fn read(&self, offset: u64, size: u32) -> u64 {
        call(self.machine, Part::Frontend);
        self.part.read(offset, size)
    }
    fn write(&mut self, offset: u64, size: u32, value: u64) -> Effects {
        call(self.machine, Part::Frontend);
        self.part.write(offset, size, value)
    }
    fn queue(&self) -> GuestQueue {
        call(self.machine, Part::Frontend);
        self.part.queue()
    }
    fn advance(&mut self, commands: u32) {
        call(self.machine, Part::Frontend);
        self.part.advance(commands);
    }
    fn fault(&mut self, fault: GuestFault) -> Effects {
        call(self.machine, Part::Frontend);
        self.part.fault(fault)
    }
    fn sync_done(&mut self, command: &[u64]) -> Effects {
        call(self.machine, Part::Frontend);
        self.part.sync_done(command)
    }
    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        call(self.machine, Part::Frontend);
        self.part.event(virt_id, record)
    }
    fn event_lost(&mut self) -> Effects {
        call(self.machine, Part::Frontend);
        self.part.event_lost()
    }
    fn mode(&self) -> Mode {
        call(self.machine, Part::Frontend);
        self.part.mode()
    }
    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        call(self.machine, Part::Frontend);
        self.part.entry(memory, virt_id, entry)
    }
    fn watched(&self, memory: &dyn GuestMemory, streams: &[u32], from: u32, out: &mut [u64]) -> u32 {
        call(self.machine, Part::Frontend);
        self.part.watched(memory, streams, from, out)
    }
    fn reset(&mut self) {
        call(self.machine, Part::Frontend);
        self.part.reset();
    }
    fn register_name(&self, offset: u64) -> Option<&'static str> {
        self.part.register_name(offset)
    }
    fn trouble(&self, text: &mut Message) {
        self.part.trouble(text);
    }
    fn save(&self) -> Vec<u8> {
        self.part.save()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal> {
        self.part.restore(state)
    }
}

//! A VMM may end at any point of its making a VM. Whatever there was by then must be gone.

use crate::bench::{DEVICES, IOVA, Machine, STREAMS, guest_memory, map_all};
use crate::checks::Checks;
use crate::guest::Guest;
use crate::tables::{Access, Descriptor, Memory, Tables, translate};
use std::any::Any;
use viommu::blocking::Host;
use viommu::objects::ViommuConfig;
use viommu_examples::Story;

/// What there is after each step of making a VM.
const STATES: [&str; 11] = [
    "a host",
    "an IOAS",
    "memory mapped",
    "a nesting parent",
    "devices bound",
    "a vIOMMU",
    "an event queue",
    "one vdevice",
    "two vdevices",
    "the guest's IOMMU on",
    "devices on nested HWPTs",
];

/// How it ends.
const ENDS: [&str; 3] = ["parents dropped first", "children dropped first", "shut down with everything held"];

/// Everything in every state, ended in every way.
pub(crate) fn states(machine: &dyn Machine, checks: &mut Checks) -> Story {
    for (last, state) in STATES.iter().enumerate() {
        for (way, end) in ENDS.iter().enumerate() {
            let (host, mut handles) = build(machine, last)?;
            let mut held = Vec::new();
            match way {
                0 => handles.drain(..).for_each(drop),
                1 => while handles.pop().is_some() {},
                _ => held = std::mem::take(&mut handles),
            }
            let left = host.shutdown()?;
            let expected_held = if way == 2 { left.held.clone() } else { Vec::new() };
            checks.same(
                format_args!("{state}, {end}: nothing stays"),
                (left.held, left.remaining),
                (expected_held, Vec::new()),
            );
            drop(held);
        }
    }
    Ok(())
}

type Handles = Vec<Box<dyn Any>>;

/// A VM made up to state number `last`; the handles in the order of their making.
fn build(machine: &dyn Machine, last: usize) -> Story<(Host, Handles)> {
    let mut handles: Handles = Vec::new();
    let host = machine.host()?;
    if last >= 1 {
        let memory = guest_memory()?;
        let ioas = host.ioas()?;
        handles.push(Box::new(ioas.clone()));
        if last >= 2 {
            map_all(machine, &ioas, &memory)?;
        }
        if last >= 3 {
            let parent = ioas.nest_parent()?;
            handles.push(Box::new(parent.clone()));
            let bound = if last >= 4 { DEVICES } else { 0 };
            let devices = (0..bound).map(|n| host.device(machine.stream(n))).collect::<Result<Vec<_>, _>>()?;
            handles.push(Box::new(devices.clone()));
            if last >= 5 {
                let viommu = parent.viommu(ViommuConfig::new(machine.registers()?, memory.clone()))?;
                handles.push(Box::new(viommu.clone()));
                let guest = Guest::new(&viommu, Memory::new(memory))?;
                if last >= 6 {
                    handles.push(Box::new(viommu.event_queue()?));
                }
                let named = last.saturating_sub(6).min(DEVICES);
                for (device, stream) in devices.iter().zip(STREAMS).take(named) {
                    handles.push(Box::new(viommu.vdevice(device, stream)?));
                }
                if last >= 9 {
                    guest.enable()?;
                }
                if last >= 10 {
                    let memory = &guest.memory;
                    let (tables, descriptor) = (Tables::new(memory), Descriptor::new(memory));
                    tables.map(memory, IOVA, memory.page(), Access::Write)?;
                    descriptor.write(memory, &tables, 1)?;
                    for stream in STREAMS {
                        guest.set_entry(stream, translate(descriptor.gpa))?;
                    }
                }
            }
        }
    }
    Ok((host, handles))
}

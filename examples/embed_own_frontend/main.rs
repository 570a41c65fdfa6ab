//! viommu under a VMM that emulates the SMMU's registers itself, and keeps doing so.
//!
//! [`OwnSmmu`] (smmu.rs) is such an emulation: registers, command queue, stream table walk; its event queue is in
//! event_queue.rs. What its guest asks for goes to viommu below the register frame, by four calls:
//!
//! ```text
//!   CFGI_STE, CFGI_ALL, CR0.SMMUEN ─► read the STE ─► Viommu::install_entry, set_passthrough, set_blocking
//!   TLBI, CFGI_CD, ATC_INV ─► collected until CMD_SYNC ─► Viommu::invalidate, and only then does CONS move
//!   events ◄─ Interrupts::event
//! ```
//! A recorded Linux guest drives it; every DMA is compared with what it did when it was recorded.
//! `cargo run -p viommu-examples --example embed_own_frontend [TRACE]`

mod event_queue;
mod smmu;

use event_queue::EventQueue;
use smmu::{Count, OwnSmmu};
use std::fmt;
use std::sync::Arc;
use viommu::blocking::Host;
use viommu::objects::ViommuConfig;
use viommu_examples::{PhysicalMachine, RecordedGuest, Score, Step, Story};
use viommu_plugin_host::{Plugin, SearchPath};

fn main() -> Story {
    let outcome = run(&RecordedGuest::argument_or(1, "arm73-ats-strict")?)?;
    println!("{outcome}");
    if outcome.score.is_right() { Ok(()) } else { Err("not every DMA was right".into()) }
}

/// What is told at the end.
#[derive(Debug)]
struct Outcome {
    score: Score,
    count: Count,
    left_over: bool,
}

fn run(recorded: &RecordedGuest) -> Story<Outcome> {
    // As in `embed_vmm`: the plugin, one host for the machine's IOMMU, the VM's RAM.
    let plugin = Plugin::find(recorded.plugin_name()?, &SearchPath::standard())?;
    let machine = PhysicalMachine::new(&plugin)?;
    let host: Host = viommu::Host::builder().backend(machine.backend()).plugin(plugin).build()?.into();
    let ram = machine.guest_ram(recorded, 0)?;
    let ioas = host.ioas()?;
    for mapping in ram.mappings() {
        ioas.map(mapping)?;
    }

    // A vIOMMU without a frontend. It still has to know the ID registers: they say which commands are legal.
    let events = Arc::new(EventQueue::new(ram.memory()));
    let viommu = ioas.nest_parent()?.viommu(ViommuConfig {
        frontend: false,
        interrupts: events.clone(),
        ..ViommuConfig::new(recorded.id_registers(), ram.memory().clone())
    })?;
    let event_queue = viommu.event_queue()?;

    // The VMM's own SMMU, with the devices that the guest boots with.
    let mut smmu = OwnSmmu::new(&host, viommu, events.clone(), ram.memory(), recorded.id_registers());
    for device in &recorded.header().devices {
        smmu.plug(device.sid)?;
    }

    // The guest runs.
    let mut score = Score::default();
    let mut guest = recorded.play(ram.memory())?;
    while let Some(step) = guest.step()? {
        match step {
            Step::Write { offset, size, value } => smmu.write(offset, size, value)?,
            Step::Read { offset, size, value } => score.register(offset, value, smmu.read(offset, size)),
            Step::Dma(dma) => {
                let stream = smmu.plug(dma.stream)?;
                score.dma(&dma, &ram, &machine.dma(stream, &dma)?);
            }
            Step::Reset => smmu.reset()?,
        }
    }

    let count = smmu.count();
    drop((smmu, event_queue, ioas));
    Ok(Outcome { score, count, left_over: !host.shutdown()?.is_empty() })
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { invalidations, syncs, entries, events } = self.count;
        writeln!(f, "guest: {invalidations} invalidations, {syncs} SYNCs, {entries} entries read, {events} events")?;
        writeln!(f, "score: {}", self.score)?;
        write!(f, "left over: {}", if self.left_over { "something" } else { "nothing" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_guests_do_what_they_did() {
        for name in ["arm73-ats-strict", "arm73-churn", "arm73-reboot", "arm73-passthrough"] {
            let outcome = run(&RecordedGuest::named(name).unwrap()).unwrap();
            assert!(outcome.score.is_right() && outcome.count.syncs > 0 && !outcome.left_over, "{name}: {outcome}");
        }
    }
}

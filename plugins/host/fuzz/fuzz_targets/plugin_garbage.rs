//! A plugin whose table and answers are anything: it is refused, or each call fails or gives what the host's contract
//! promises. What it writes where it may is garbage; where it may not write, and what its pointers are, is trusted.
//!
//! Input: size, major, minor, facts and which slots are there; the rest are the answers.

#![no_main]

mod table;

use libfuzzer_sys::fuzz_target;
use table::{Garbage, give};
use viommu_plugin::*;
use viommu_plugin_host::{CallError, Plugin};

/// A machine without anything, and memory that is zero.
struct Nothing;

impl Hardware for Nothing {
    fn mmio_read(&self, _offset: u64, _size: u32) -> u64 {
        0
    }
    fn mmio_write(&self, _offset: u64, _size: u32, _value: u64) {}
    fn read(&self, _pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        bytes.fill(0);
        Ok(())
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn alloc(&self, _len: u64, _align: u64) -> Result<u64, Refusal> {
        Err(Refusal::new(Refusal::ENOMEM, "no memory"))
    }
    fn free(&self, _pa: u64, _len: u64) {}
    fn issue(&self, _commands: &[u64]) -> Result<(), Refusal> {
        Ok(())
    }
}

impl ModelHost for Nothing {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        Hardware::read(self, pa, bytes)
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn irq(&self, _line: u32) {}
}

impl GuestMemory for Nothing {
    fn read(&self, _gpa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
}

/// Every error has an errno and a text; what is good is looked at by `good`.
fn judge<T>(outcome: Result<T, CallError>, good: impl FnOnce(T)) {
    match outcome {
        Ok(value) => good(value),
        Err(error) => assert!(error.errno() > 0 && !error.to_string().is_empty(), "{error:?}"),
    }
}

fn effects(effects: &Effects) {
    assert!(effects.store_count as usize <= effects.stores.len() && effects.msi_count as usize <= effects.msis.len());
    assert!(effects.stores[..effects.store_count as usize].iter().all(|store| store.len as usize <= GuestStore::ROOM));
}

fn frontend(plugin: &Plugin) {
    judge(plugin.frontend(&[Register::default()]), |mut it| {
        judge(it.read(0, 4), drop);
        judge(it.write(8, 8, 1), effects);
        judge(it.queue(), |queue| {
            assert!(queue.pending <= queue.capacity && queue.state.0 <= QueueState::STOPPED.0, "{queue:?}");
            if queue.state == QueueState::RUNNING && queue.fault == GuestFault::NONE {
                assert!(queue.capacity == 0 || queue.head < queue.capacity, "{queue:?}");
                assert!((1..=plugin.info().command_words).contains(&(queue.command_words as usize)), "{queue:?}");
            }
        });
        judge(it.advance(1), drop);
        judge(it.fault(GuestFault::FETCH_ABORT), effects);
        judge(it.sync_done(&[0, 0]), effects);
        judge(it.event(1, &[0; 4]), effects);
        judge(it.event_lost(), effects);
        judge(it.mode(), |mode| assert!(mode.0 <= Mode::TRANSLATE.0));
        judge(it.entry(&Nothing, 0, &mut [0; 4]), |found| assert!(found.0 <= Lookup::UNREADABLE.0));
        judge(it.reset(), drop);
        judge(it.watched(&Nothing, &[1, 2], 300), |pages| assert!(pages.len() <= 300));
        judge(it.hw_queues(), drop);
        judge(it.save(), |state| assert!(state.len() <= 1 << 20));
        judge(it.restore(&[1, 2, 3]), drop);
        judge(it.register_name(0), |name| assert!(name.is_none_or(|name| name.len() <= 256)));
        let mut text = Message::default();
        judge(it.trouble(&mut text), drop);
        assert!(text.text().len() <= 3 * 2044);
    });
}

fn codec(plugin: &Plugin) {
    let words = plugin.info().command_words;
    judge(plugin.codec(&[]), |it| {
        for (given, room, before) in
            [(4, 4, Classes::NONE), (1, 64, Classes::TLB), (0, 0, Classes::NONE), (3, 1, Classes::ATC)]
        {
            let ids = HostIds { tag: 1, streams: &[3, NO_STREAM], domains: &[] };
            let mut out = vec![0; room * words];
            judge(it.rewrite(&vec![1; given * words], before, ids, &mut out), |done| {
                assert!(done.taken as usize <= given && done.written as usize <= room, "{done:?}");
                assert!(done.stop.0 <= Stop::SHADOW.0 && (done.stop == Stop::END) == (done.taken as usize == given));
                assert!(u64::from(done.local_stream) + u64::from(done.hints) <= done.taken.into(), "{done:?}");
                assert!(u64::from(done.tlb) + u64::from(done.config) + u64::from(done.atc) <= done.written.into());
                assert!(done.stop != Stop::FAULT || done.fault != GuestFault::NONE, "{done:?}");
                // Whoever asks again with what is left must get on, or be told why not.
                let stuck = done.taken == 0 && before == Classes::NONE && done.stop == Stop::ORDER;
                assert!(!stuck && (done.taken > 0 || done.stop != Stop::ROOM || room < 8), "{done:?}");
            });
        }
        judge(it.configuration(&[0; 8][..words]), |scope| assert!(scope.first <= scope.last || scope.flush == 1));
        judge(it.mode(), |mode| assert!(mode.0 <= TranslationMode::SHADOW.0));
        judge(it.traits(), drop);
        judge(it.shadow_range(&[0; 8][..words]), |range| assert!(range.first <= range.last && range.all_domains <= 1));
        let mut leaves = [GuestMapping::default(); 4];
        judge(it.walk(&EntryKey::default(), &Nothing, 0x1000, 0xffff, &mut leaves), |walked| {
            assert!(walked.written <= 4 && (walked.done == 1 || walked.next > 0x1000), "{walked:?}");
            for leaf in &leaves[..walked.written as usize] {
                assert!(
                    leaf.length.is_power_of_two() && leaf.iova % leaf.length == 0 && leaf.iova <= 0xffff,
                    "{leaf:?}"
                );
            }
        });
        judge(it.entry_key(&[0; 16]), |key| {
            assert!(key.kind.0 <= KeyKind::TRANSLATE.0 && (key.kind == KeyKind::TRANSLATE || key.words == [0; 4]));
        });
        judge(it.opcode(&[1]), drop);
        judge(it.opcode_name(1), |name| assert!(name.is_none_or(|name| name.len() <= 256)));
        let mut text = Message::default();
        judge(it.describe(&[1], &mut text), drop);
        drop(text.text());
    });
}

fn driver(plugin: &Plugin) {
    judge(plugin.driver(Box::new(Nothing)), |mut it| {
        judge(it.info(), |info| {
            assert!((1..=plugin.info().command_words).contains(&(info.ring.command_words as usize)), "{info:?}");
            assert!((1..=24).contains(&info.ring.log2_commands) && info.streams > 0, "{info:?}");
            assert!(info.first_tag <= info.last_tag && info.page_log2 <= info.ipa_bits && info.ipa_bits <= 64);
        });
        judge(it.guest_registers(TranslationMode::NESTED), |registers| assert!(registers.len() <= 4096));
        judge(it.stage2_create(1), drop);
        judge(it.stage2_map(0, 0, 0, 4096, 3), drop);
        judge(it.stage2_unmap(0, 0, 4096), drop);
        judge(it.attach(0, 0, 1, &EntryKey::default()), drop);
        judge(it.detach(0), drop);
        let mut out = [0; 8];
        judge(it.encode(&HostInvalidation::default(), &mut out), |words| assert!(words <= 8));
        judge(it.queue_fault(), |fault| {
            assert!(fault.is_none_or(|fault| (1..=QueueFaultKind::ATC_TIMEOUT.0).contains(&fault.kind.0)));
        });
        judge(it.queue_resume(), drop);
        judge(it.event(), |event| {
            assert!(event.is_none_or(|event| event.words <= 8 && event.owner.0 <= EventOwner::INTERFACE.0));
        });
        judge(it.interrupt(4), drop);
        judge(it.interface_create(0), drop);
        judge(it.interface_stream_set(0, 1, 2), drop);
        judge(it.interface_domain_set(0, 1, 2), drop);
        judge(it.hw_queue_create(0, &HwQueueRequest::default(), 0), drop);
        judge(it.hw_queue_destroy(0), drop);
        judge(it.interface_domain_clear(0, 1), drop);
        judge(it.interface_stream_clear(0, 1), drop);
        judge(it.interface_destroy(0), drop);
        judge(it.stage2_destroy(0), drop);
    });
}

fn model(plugin: &Plugin) {
    judge(plugin.model(Box::new(Nothing), ModelConfig::default()), |mut it| {
        judge(it.mmio_read(0, 4), drop);
        judge(it.mmio_write(0, 4, 1), drop);
        judge(it.step(3), |consumed| assert!(consumed <= 3));
        let mut answers = [Answer::default(); 2];
        judge(it.translate(&[Request::default(); 3], &mut answers), |count| {
            assert!(count <= 2);
            for answer in &answers[..count] {
                assert!(answer.status.0 <= Status::DISABLED.0 && answer.leaf_log2 <= 64, "{answer:?}");
            }
        });
        let mut text = Message::default();
        judge(it.explain(&Request::default(), &mut text), drop);
        drop(text.text());
        judge(it.stats(), drop);
        judge(it.atc_unresponsive(0, true), drop);
        judge(it.reset(), drop);
    });
}

fuzz_target!(|input: &[u8]| {
    let Some((shape, answers)) = input.split_first_chunk::<{ table::SHAPE }>() else { return };
    let garbage = Garbage::new(shape);
    give(answers);
    let plugin = match garbage.plugin() {
        Ok(plugin) => plugin,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let info = plugin.info();
    assert!((1..=8).contains(&info.command_words) && (1..=16).contains(&info.entry_words));
    assert!((1..=8).contains(&info.event_words) && !info.name.is_empty() && info.frame_bytes >= 8);
    assert!(garbage.complete(&info.parts), "a part that lacks a slot is offered");
    judge(plugin.covers(&[Register::default()], &[]), drop);
    for _ in 0..2 {
        frontend(&plugin);
        codec(&plugin);
        driver(&plugin);
        model(&plugin);
    }
});

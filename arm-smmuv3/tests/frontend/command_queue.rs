//! The command queue: indices, errors, SYNC.

use crate::{frontend, with_msi, write};
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, GuestFault, QueueState};

const GERROR_LINE: u32 = 1 << 3;
const SYNC_LINE: u32 = 1 << 2;

/// An enabled queue of 2^`log2` commands at 0x5bf0_0000, with both indices at `start`.
fn queue(mut smmu: ArmFrontend, log2: u64, start: u64) -> ArmFrontend {
    smmu.write(offset::CMDQ_BASE, 8, 0x5bf0_0000 | log2);
    write(&mut smmu, offset::CMDQ_PROD, start);
    write(&mut smmu, offset::CMDQ_CONS, start);
    write(&mut smmu, offset::IRQ_CTRL, 1);
    write(&mut smmu, offset::CR0, 8);
    smmu
}

fn cons(smmu: &ArmFrontend) -> (u64, u64) {
    let cons = smmu.read(offset::CMDQ_CONS, 4);
    (cons & 0xf_ffff, cons >> 24 & 0x7f)
}

#[test]
fn doorbell_and_advance_over_the_wrap() {
    let mut smmu = queue(frontend(), 3, 6);
    assert_eq!(write(&mut smmu, offset::CMDQ_PROD, 11), Actions::KICK);
    let now = smmu.queue();
    assert_eq!((now.base, now.capacity, now.head, now.pending), (0x5bf0_0000, 8, 6, 5));
    assert_eq!((now.state, now.fault, now.command_words), (QueueState::RUNNING, GuestFault::NONE, 2));
    smmu.advance(4);
    assert_eq!((cons(&smmu).0, smmu.queue().head, smmu.queue().pending), (10, 2, 1));
    smmu.advance(u32::MAX);
    assert_eq!((cons(&smmu).0, smmu.queue().pending), (11, 0), "not beyond PROD");
}

#[test]
fn smallest_and_largest_queue() {
    let mut one = queue(frontend(), 0, 0);
    write(&mut one, offset::CMDQ_PROD, 1);
    assert_eq!((one.queue().capacity, one.queue().head, one.queue().pending), (1, 0, 1));
    one.advance(1);
    write(&mut one, offset::CMDQ_PROD, 0);
    assert_eq!((cons(&one).0, one.queue().head, one.queue().pending), (1, 0, 1));
    one.advance(1);
    assert_eq!((cons(&one).0, one.queue().pending), (0, 0));

    for log2 in [19, 31] {
        let mut large = queue(frontend(), log2, 0);
        write(&mut large, offset::CMDQ_PROD, 1 << 19);
        assert_eq!((large.queue().capacity, large.queue().pending), (1 << 19, 1 << 19));
        assert_eq!(large.queue().base % (16 << 19), 0);
        large.advance(1 << 19);
        assert_eq!(cons(&large).0, 1 << 19);
    }
}

#[test]
fn prod_beyond_the_queue_is_an_error_at_cons_until_it_is_mended() {
    let mut smmu = queue(frontend(), 3, 0);
    write(&mut smmu, offset::CMDQ_PROD, 9);
    assert_eq!((smmu.queue().pending, smmu.queue().fault), (0, GuestFault::QUEUE_CONFIG));
    let effects = smmu.fault(GuestFault::QUEUE_CONFIG);
    assert_eq!((effects.lines, cons(&smmu)), (GERROR_LINE, (0, 2)));
    assert_eq!(smmu.queue().state, QueueState::STOPPED);
    write(&mut smmu, offset::CMDQ_PROD, 1);
    assert_eq!(smmu.queue().state, QueueState::STOPPED, "a doorbell is no acknowledgement");
    assert_eq!(write(&mut smmu, offset::GERRORN, 1), Actions::KICK);
    assert_eq!((smmu.queue().state, smmu.queue().pending), (QueueState::RUNNING, 1));
}

#[test]
fn errors_have_the_manuals_codes_and_stop_the_queue_at_the_command() {
    for (fault, code) in [
        (GuestFault::ILLEGAL_OPCODE, 1),
        (GuestFault::RESERVED_BITS, 1),
        (GuestFault(999), 1),
        (GuestFault::FETCH_ABORT, 2),
        (GuestFault::QUEUE_CONFIG, 2),
        (GuestFault::HOST_ERROR, 2),
        (GuestFault::ATC_TIMEOUT, 3),
    ] {
        let mut smmu = queue(frontend(), 4, 0);
        write(&mut smmu, offset::CMDQ_PROD, 5);
        smmu.advance(3);
        assert_eq!(smmu.fault(fault).lines, GERROR_LINE);
        assert_eq!((cons(&smmu), smmu.read(offset::GERROR, 4)), ((3, code), 1), "{}", fault.name());
        assert_eq!(smmu.queue().state, QueueState::STOPPED);
        assert_eq!(smmu.fault(fault).lines, 0, "one error at a time");
        assert_eq!(write(&mut smmu, offset::GERRORN, 1), Actions::KICK);
        assert_eq!((smmu.queue().head, smmu.queue().pending), (3, 2), "resumes at the same command");
        // The next error toggles back.
        smmu.fault(fault);
        assert_eq!(smmu.read(offset::GERROR, 4), 0);
        assert_eq!(smmu.queue().state, QueueState::STOPPED);
    }
    assert_eq!(queue(frontend(), 4, 0).fault(GuestFault::NONE).lines, 0);
}

#[test]
fn acknowledging_inactive_errors_changes_nothing() {
    let mut smmu = queue(frontend(), 4, 0);
    for value in [4, 0, 0x1fd, 1] {
        assert_eq!(write(&mut smmu, offset::GERRORN, value), 0);
        assert_eq!((smmu.read(offset::GERRORN, 4), smmu.queue().state), (0, QueueState::RUNNING));
    }
    smmu.fault(GuestFault::ILLEGAL_OPCODE);
    write(&mut smmu, offset::GERRORN, 4);
    assert_eq!(smmu.queue().state, QueueState::STOPPED, "another error's acknowledgement");
}

#[test]
fn an_error_interrupts_only_where_enabled_and_by_message_where_set() {
    let mut quiet = queue(frontend(), 4, 0);
    write(&mut quiet, offset::IRQ_CTRL, 0);
    assert_eq!(quiet.fault(GuestFault::ILLEGAL_OPCODE).lines, 0);
    let mut msi = queue(with_msi(), 4, 0);
    msi.write(offset::GERROR_IRQ_CFG0, 8, 0x808_0040);
    write(&mut msi, offset::GERROR_IRQ_CFG1, 77);
    let effects = msi.fault(GuestFault::ILLEGAL_OPCODE);
    assert_eq!((effects.lines, effects.msi_count), (0, 1));
    assert_eq!((effects.msis[0].address, effects.msis[0].data), (0x808_0040, 77));
}

#[test]
fn sync_signals_as_it_asks() {
    let done = |mut smmu: ArmFrontend, words: [u64; 2]| {
        write(&mut smmu, offset::CMDQ_PROD, 1);
        let effects = smmu.sync_done(&words);
        assert_eq!(cons(&smmu).0, 1);
        effects
    };
    let (none, irq, sev) = ([0x46, 0], [0x1046, 0], [0x2046, 0]);
    let msi = [0xdead_beef << 32 | 0x1046, 0x4000_0010];
    for words in [none, sev] {
        let effects = done(queue(with_msi(), 4, 0), words);
        assert_eq!((effects.lines, effects.store_count, effects.msi_count), (0, 0, 0));
    }
    assert_eq!(done(queue(frontend(), 4, 0), irq).lines, SYNC_LINE);
    assert_eq!(done(queue(with_msi(), 4, 0), irq).lines, SYNC_LINE);
    assert_eq!(done(queue(frontend(), 4, 0), msi).lines, SYNC_LINE, "no MSI was offered");
    let effects = done(queue(with_msi(), 4, 0), msi);
    assert_eq!((effects.lines, effects.store_count), (0, 1));
    let store = effects.stores[0];
    assert_eq!((store.gpa, store.len, &store.bytes[..4]), (0x4000_0010, 4, &0xdead_beef_u32.to_le_bytes()[..]));
}

#[test]
fn cons_is_the_smmus_own_while_the_queue_is_enabled() {
    let mut smmu = queue(frontend(), 4, 0);
    write(&mut smmu, offset::CMDQ_CONS, 7);
    assert_eq!(cons(&smmu).0, 0);
    write(&mut smmu, offset::CR0, 0);
    assert_eq!(smmu.queue().state, QueueState::DISABLED);
    write(&mut smmu, offset::CMDQ_CONS, 7);
    assert_eq!(cons(&smmu).0, 7);
}

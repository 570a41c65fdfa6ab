//! The prover on a second format: the mock is what its specification says, and each lie of its codec is found.

#![forbid(unsafe_code)]

use mock_plugin::{Mock, lie_in};
use viommu_plugin::{Classes, EntryKey, KeyKind, Vendor};
use viommu_plugin_check::proof::{self, Becomes, CommandTable, EntryTable, Field, Part, Row, Wrong};

const SLOT: Field = Field::new(32, 33);
const STREAM: Field = Field::new(64, 95);

/// The commands of `mock_plugin::spec`.
fn commands() -> CommandTable {
    let iotlb = Becomes::Host { class: Classes::TLB, opcode: 1, tag: Some(Field::new(48, 63)), stream: None };
    let cache = Becomes::Host { class: Classes::ATC, opcode: 2, tag: None, stream: Some(STREAM) };
    let rows = vec![
        Row::new("INVALIDATE_IOTLB", vec![1, 0], vec![Field::bit(8), SLOT], iotlb),
        Row::new("INVALIDATE_CACHE", vec![2, 0], vec![SLOT, STREAM], cache),
        Row::new("CONFIG", vec![3, 0], vec![STREAM], Becomes::Configuration { stream: None }),
        Row::new("PREFETCH", vec![4, 0], vec![STREAM], Becomes::Hint { stream: None }),
        Row::new("SYNC", vec![5, 0], vec![Field::new(64, 127)], Becomes::Sync),
    ];
    CommandTable::new(2, 0xff, rows)
}

/// Its table entries: valid in bit 0, bypass in bit 1, an offset in word 1, and nothing else.
fn entries() -> EntryTable {
    let key = |entry: &[u64]| {
        let key = |kind, event, words| EntryKey { kind, event, words, ..EntryKey::default() };
        let legal = entry[0] <= 3 && entry[2..] == [0, 0];
        match entry[0] & 3 {
            0 | 2 => key(KeyKind::ABORT, 0, [0; 4]),
            _ if !legal => key(KeyKind::ABORT, 1, [0; 4]),
            1 => key(KeyKind::TRANSLATE, 0, [1, entry[1], 0, 0]),
            _ => key(KeyKind::BYPASS, 0, [0; 4]),
        }
    };
    EntryTable {
        bases: vec![vec![1, 0x1000, 0, 0], vec![3, 0, 0, 0]],
        restricted: vec![Field::new(0, 3)],
        allowed: vec![Field::bit(0), Field::new(64, 127)],
        key: Box::new(key),
    }
}

#[test]
fn the_mock_is_what_its_specification_says() {
    let codec = Mock::codec(&[]).unwrap();
    let judged = proof::commands(&codec, &commands()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let read = proof::entries(&codec, &entries(), |_, _| Ok(())).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{judged} commands and batches, {read} entries");
}

#[test]
fn each_lie_of_its_codec_is_found() {
    for lie in ["foreign-stream", "foreign-tag", "impure", "accepts-anything", "codec_rewrite"] {
        let codec = Mock::codec(&[lie_in(lie).expect("it is a lie")]).unwrap();
        assert!(proof::commands(&codec, &commands()).is_err(), "nothing noticed {lie}");
    }
    let codec = Mock::codec(&[lie_in("codec_entry_key").expect("it is a lie")]).unwrap();
    assert!(proof::entries(&codec, &entries(), |_, _| Ok(())).is_err());
}

#[test]
fn a_mistake_that_nothing_notices_is_named() {
    let noticed = |mistakes: &[proof::Mistake]| {
        proof::mistakes_are_noticed(|| Mock::codec(&[]).unwrap(), &commands(), &entries(), mistakes)
    };
    let tag = ("the tag has 4 bits", Wrong::LooksUp(|ids| ids.tag &= 0xf), Part::Ids);
    let order = ("no order", Wrong::NoOrder, Part::Batches);
    let entry = (
        "bypass is taken for abort",
        Wrong::Reads(|right, entry| right.entry_key(&[entry[0] & !2, entry[1], 0, 0])),
        Part::Entries,
    );
    assert_eq!(noticed(&[tag, order, entry]), Ok(()));
    let elsewhere = ("an order that is looked for in single commands", Wrong::NoOrder, Part::Bits);
    let unnoticed = noticed(&[tag, ("nothing", Wrong::Not, Part::Values), elsewhere]).unwrap_err();
    assert!(unnoticed.ends_with("nothing; an order that is looked for in single commands"), "{unnoticed}");
}

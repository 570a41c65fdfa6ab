//! The kernel's payloads through the table: what the mock says, panics contained, answers checked, slots that are not there.

#![forbid(unsafe_code)]

use mock_plugin::kernel::{GUEST_PAGE, KERNEL_SLOTS, KernelMock, VEVENTQ_TYPE, lies_in, panics_in};
use mock_plugin::{Mock, MockCodec, MockDriver, MockFrontend, MockModel, spec};
use viommu_plugin::*;
use viommu_plugin_host::{CallError, KernelAbi, Plugin, SearchPath};

fn both_ways_in() -> [Plugin; 2] {
    let test = std::env::current_exe().expect("a test has a path");
    let search = SearchPath::new([test.parent().expect("it is in a folder").to_path_buf()]);
    [Plugin::linked::<Mock>(), Plugin::find("mock", &search).expect("cargo built the mock's library")]
}

/// A vendor whose guests are not served on /dev/iommu.
struct Without;

impl Vendor for Without {
    const INFO: VendorInfo = Mock::INFO;
    type Frontend = MockFrontend;
    type Codec = MockCodec;
    type Driver = MockDriver;
    type Model = MockModel;

    fn frontend(registers: &[Register]) -> Result<MockFrontend, Refusal> {
        Mock::frontend(registers)
    }
    fn codec(registers: &[Register]) -> Result<MockCodec, Refusal> {
        Mock::codec(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<MockDriver, Refusal> {
        Mock::driver(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<MockModel, Refusal> {
        Mock::model(host, config)
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn the_mocks_payloads_are_those_of_the_kernels_mock() {
    for plugin in both_ways_in() {
        let kernel = plugin.kernel_abi().expect("the mock has payloads");
        let facts = kernel.facts().expect("facts");
        assert_eq!((facts.hw_info_type, facts.hwpt_data_type, facts.viommu_type), (0xfeed_beef, 0xdead, 0xdead_beef));
        assert_eq!((facts.veventq_type, facts.vevent_bytes, facts.hw_queue_type), (0xbeef_beef, 4, 0xdead_beef));

        let shown = kernel.registers(&bytes(&[0, 0xdead_beef]), 0, TranslationMode::NESTED).expect("registers");
        assert_eq!(shown[0], Register { offset: spec::ID, value: 0xdead_beef });
        let short = kernel.registers(&[0; 7], 0, TranslationMode::NESTED).expect_err("a byte is missing");
        assert_eq!((short.errno(), short.to_string().contains("8 bytes")), (22, true));

        let key = EntryKey { kind: KeyKind::TRANSLATE, words: [1, 0xbad_beef, 0, 0], ..EntryKey::default() };
        let mut data = [0xa5; 12];
        assert_eq!(kernel.hwpt_data(&key, &mut data), Ok(8));
        assert_eq!(data[..], bytes(&[0xbad_beef, 0, 0xa5a5_a5a5]));
        assert_eq!(kernel.hwpt_data(&EntryKey::default(), &mut data), Ok(0));

        // Slot 2 of every nested HWPT, all of them; then the cache slot 1 of device 5, and a WAIT, which is no invalidation.
        let commands = [2 << 32 | 1, 0, spec::FLAG_ALL | 1, 0, 1 << 32 | 2, 5, 5, 0];
        let mut room = [0; 64];
        let done = kernel.entries(&commands, &mut room).expect("entries");
        let right = KernelEntries { taken: 4, written: 16, entry_bytes: 8, ..KernelEntries::default() };
        assert_eq!(done, KernelEntries { target: InvalidateTarget::NESTED_HWPT, ..right });
        assert_eq!(room[..16], bytes(&[0, 2, 1, 0]));
        let done = kernel.entries(&commands[4..], &mut room).expect("entries");
        assert_eq!(done, KernelEntries { taken: 2, written: 12, entry_bytes: 12, refused: 1, ..right });
        assert_eq!(room[..12], bytes(&[0, 5, 1]));
        assert_eq!([[1, 0], [2, 5]].map(|command| kernel.repeatable(&command)), [Ok(true), Ok(false)]);

        let event = kernel.event(VEVENTQ_TYPE, &bytes(&[7])).expect("an answer").expect("an event");
        assert_eq!((event.virt_id, event.words), (7, spec::EVENT_WORDS as u32));
        assert_eq!(kernel.event(1, &bytes(&[7])), Ok(None));
        let page = kernel.interface(&bytes(&[0, 0, 0x1000, 0, 0x1000, 0])).expect("an answer").expect("a page");
        assert_eq!((page.page, page.page_length, page.guest_page), (0x1000, 0x1000, GUEST_PAGE));
        assert_eq!(kernel.interface(&[0; 24]), Ok(None));
    }
}

#[test]
fn a_vendor_without_payloads_says_so() {
    assert!(Plugin::linked::<Without>().kernel_abi().is_none());
}

/// The answer of each slot, in the order of [`KERNEL_SLOTS`].
fn answers(kernel: &KernelAbi) -> [Result<(), CallError>; 7] {
    let mut room = [0; 64];
    [
        kernel.facts().map(drop),
        kernel.registers(&[0; 8], 0, TranslationMode::NESTED).map(drop),
        kernel.hwpt_data(&EntryKey::default(), &mut room).map(drop),
        kernel.entries(&[1, 0], &mut room).map(drop),
        kernel.repeatable(&[1, 0]).map(drop),
        kernel.event(VEVENTQ_TYPE, &[0; 4]).map(drop),
        kernel.interface(&[1; 24]).map(drop),
    ]
}

fn bad<const BAD: usize>() -> [Result<(), CallError>; 7] {
    let kernel = Plugin::linked::<KernelMock<BAD>>().kernel_abi().expect("it has payloads");
    let first = answers(&kernel);
    assert_eq!(first, answers(&kernel), "there is no instance that could be dead");
    first
}

#[test]
fn a_panic_is_an_error_of_that_slot() {
    let all = [
        bad::<{ panics_in(0) }>(),
        bad::<{ panics_in(1) }>(),
        bad::<{ panics_in(2) }>(),
        bad::<{ panics_in(3) }>(),
        bad::<{ panics_in(4) }>(),
        bad::<{ panics_in(5) }>(),
        bad::<{ panics_in(6) }>(),
    ];
    for (index, answers) in all.into_iter().enumerate() {
        for (slot, answer) in KERNEL_SLOTS.into_iter().zip(answers) {
            let told = slot == KERNEL_SLOTS[index];
            assert_eq!(answer, if told { Err(CallError::Panicked { slot }) } else { Ok(()) }, "{slot}");
        }
    }
}

#[test]
fn an_answer_out_of_range_is_an_error() {
    let all = [
        (0, bad::<{ lies_in(0) }>()),
        (2, bad::<{ lies_in(2) }>()),
        (3, bad::<{ lies_in(3) }>()),
        (5, bad::<{ lies_in(5) }>()),
        (6, bad::<{ lies_in(6) }>()),
    ];
    for (index, answers) in all {
        let slot = KERNEL_SLOTS[index];
        assert!(matches!(&answers[index], Err(CallError::OutOfRange { slot: named, .. }) if *named == slot), "{slot}");
    }
}

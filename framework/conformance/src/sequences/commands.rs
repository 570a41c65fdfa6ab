//! Commands with arguments that are mostly right.

use super::draw::Draw;
use super::generate::whatever;
use super::step::{Ioctl, Kind, Value};
use viommu::uapi::{Command, selftest};

/// Where sequences map: page k of the memory belongs at page k from here.
pub(super) const IOVA: u64 = selftest::APERTURE_START;
/// Pages that are mapped.
pub(super) const PAGES: u32 = 16;
pub(super) const PAGE: u64 = 4096;

fn object(kind: Kind, draw: &mut Draw) -> Value {
    Value::Object(kind, draw.below(4))
}

pub(super) fn anything(draw: &mut Draw) -> Ioctl {
    match draw.below(40) {
        0..2 => ioas_alloc(),
        2..5 => map(draw),
        5..7 => unmap(draw),
        7 => copy(draw),
        8 => iova_ranges(draw),
        9 => allow_iovas(draw),
        10 => option(draw),
        11 => vfio_ioas(draw),
        12..15 => {
            let flags = draw.one(&[0, 1, 2, 3, 8, 9, 10, 11, 4]);
            hwpt(flags, if flags & 1 == 0 { Kind::Paging } else { Kind::Parent })
        }
        15..19 => nested(draw.one(&[Kind::Parent, Kind::Viommu, Kind::Viommu]), draw.one(&[0, 0, 8, 4, 4, 12]), draw),
        19 => hw_info(draw),
        20 => set_dirty(draw),
        21 => get_dirty(draw),
        22..26 => invalidate(draw),
        26 => fault_queue(),
        27..29 => viommu(draw),
        29..31 => vdevice(draw),
        31 => veventq(draw),
        32..34 => hw_queue(draw),
        34 => Ioctl::of(draw.one(&[Command::IoasChangeProcess, Command::IoasNoiommuGetPa])),
        35 => Ioctl::of(Command::IoasMapFile).word(4, 7).id(8, object(Kind::Ioas, draw)).no_file(12).long(24, PAGE),
        _ => Ioctl::of(Command::Destroy).id(4, whatever(draw)),
    }
}

pub(super) fn ioas_alloc() -> Ioctl {
    Ioctl::of(Command::IoasAlloc).word(4, 0).makes(Kind::Ioas)
}

/// A page number and a number of pages.
fn pages(draw: &mut Draw) -> (u64, u64) {
    let first = draw.below(PAGES);
    (u64::from(first), u64::from(1 + draw.below(4).min(PAGES - first - 1)))
}

pub(super) fn map(draw: &mut Draw) -> Ioctl {
    let (first, count) = pages(draw);
    let flags = draw.one(&[7, 7, 7, 7, 6, 5, 3, 1]);
    let iova = match draw.below(12) {
        0 => 0,
        1 => selftest::APERTURE_LAST - 0xfff,
        2 => IOVA + 0x800,
        3 => u64::MAX,
        _ => IOVA + first * PAGE,
    };
    let length = draw.one(&[count * PAGE, count * PAGE, count * PAGE, 0x800, 0, 1]);
    let ioctl = Ioctl::of(Command::IoasMap).word(4, flags).id(8, object(Kind::Ioas, draw));
    ioctl.memory(16, first * PAGE).long(24, length).long(32, iova)
}

fn unmap(draw: &mut Draw) -> Ioctl {
    let (first, count) = pages(draw);
    let (iova, length) = draw.one(&[
        (IOVA + first * PAGE, count * PAGE),
        (IOVA + first * PAGE, count * PAGE),
        (0, u64::MAX),
        (u64::MAX, 2),
    ]);
    Ioctl::of(Command::IoasUnmap).id(4, object(Kind::Ioas, draw)).long(8, iova).long(16, length)
}

fn copy(draw: &mut Draw) -> Ioctl {
    let (first, count) = pages(draw);
    let ioctl = Ioctl::of(Command::IoasCopy).word(4, draw.one(&[7, 7, 6, 3]));
    let ioctl = ioctl.id(8, object(Kind::Ioas, draw)).id(12, object(Kind::Ioas, draw));
    ioctl.long(16, count * PAGE).long(24, IOVA + u64::from(draw.below(PAGES)) * PAGE).long(32, IOVA + first * PAGE)
}

fn iova_ranges(draw: &mut Draw) -> Ioctl {
    let room = draw.below(4);
    Ioctl::of(Command::IoasIovaRanges)
        .id(4, object(Kind::Ioas, draw))
        .length(8, room)
        .lend(16, vec![0; room as usize * 16])
}

fn allow_iovas(draw: &mut Draw) -> Ioctl {
    let count = draw.below(3);
    let mut ranges = Vec::new();
    for _ in 0..count {
        let start = IOVA + u64::from(draw.below(8)) * 0x10_0000;
        let last = start + draw.one(&[0, 0xf_ffff, 0x3f_ffff]);
        ranges.extend([start, last].map(u64::to_ne_bytes).concat());
    }
    Ioctl::of(Command::IoasAllowIovas).id(4, object(Kind::Ioas, draw)).length(8, count).lend(16, ranges)
}

fn option(draw: &mut Draw) -> Ioctl {
    // Huge pages stay off: what dirty bits stand for would depend on the machine.
    let (id, op, value) =
        draw.one(&[(1, 0, 0), (1, 1, 9), (1, 0, 2), (0, 1, 0), (0, 0, 1), (0, 0, 2), (5, 0, 0), (1, 7, 0)]);
    let object = if id == 1 {
        object(Kind::Ioas, draw)
    } else {
        draw.one(&[Value::Number(0), Value::Number(0), Value::Object(Kind::Ioas, 0)])
    };
    Ioctl::of(Command::Option).length(4, id).half(8, op).id(12, object).long(16, value)
}

fn vfio_ioas(draw: &mut Draw) -> Ioctl {
    Ioctl::of(Command::VfioIoas).id(4, object(Kind::Ioas, draw)).half(8, draw.one(&[0, 0, 1, 1, 2, 3]))
}

pub(super) fn hwpt(flags: u32, makes: Kind) -> Ioctl {
    let ioctl = Ioctl::of(Command::HwptAlloc).word(4, flags).id(8, Value::Object(Kind::Idev, flags));
    ioctl.id(12, Value::Object(Kind::Ioas, flags >> 1)).id(40, Value::Object(Kind::Fault, 0)).makes(makes)
}

pub(super) fn nested(on: Kind, flags: u32, draw: &mut Draw) -> Ioctl {
    let iotlb = draw.one(&[0xbad_beefu32, 0x55]);
    let (data_type, length) =
        draw.one(&[(0xdead, 8), (0xdead, 8), (0xdead, 8), (0xdead, 8), (0xdead, 4), (0xdead, 3), (0, 0), (2, 8)]);
    let ioctl = Ioctl::of(Command::HwptAlloc).word(4, flags).id(8, object(Kind::Idev, draw)).id(12, object(on, draw));
    let ioctl = ioctl.word(24, data_type).length(28, length).id(40, object(Kind::Fault, draw)).makes(Kind::Nested);
    ioctl.lend(32, [iotlb.to_ne_bytes(), [0; 4]].concat())
}

fn hw_info(draw: &mut Draw) -> Ioctl {
    let room = draw.one(&[0, 4, 8, 8, 16]);
    let ioctl = Ioctl::of(Command::GetHwInfo).word(4, draw.one(&[0, 0, 1, 2])).id(8, object(Kind::Idev, draw));
    ioctl.length(12, room).word(24, draw.one(&[0, selftest::HW_INFO_TYPE, 2])).lend(16, vec![0xa5; room as usize])
}

fn set_dirty(draw: &mut Draw) -> Ioctl {
    let hwpt = draw.one(&[Kind::Paging, Kind::Parent, Kind::Nested]);
    Ioctl::of(Command::HwptSetDirtyTracking).word(4, draw.one(&[1, 1, 0, 2])).id(8, object(hwpt, draw))
}

fn get_dirty(draw: &mut Draw) -> Ioctl {
    let (first, count) = pages(draw);
    let hwpt = draw.one(&[Kind::Paging, Kind::Parent, Kind::Nested]);
    let ioctl = Ioctl::of(Command::HwptGetDirtyBitmap).id(4, object(hwpt, draw)).word(8, draw.one(&[0, 0, 1, 2]));
    let ioctl = ioctl.long(16, IOVA + first * PAGE).long(24, count * PAGE).long(32, draw.one(&[PAGE, PAGE, 2048, 0]));
    ioctl.lend(40, vec![0; 16])
}

fn invalidate(draw: &mut Draw) -> Ioctl {
    let on = draw.one(&[Kind::Nested, Kind::Viommu, Kind::Viommu, Kind::Paging]);
    let entry = if on == Kind::Viommu { 12 } else { 8 };
    let entry = draw.one(&[entry, entry, entry, entry, 0, 4, entry + 4]);
    let count = draw.below(5);
    let mut entries = Vec::new();
    for _ in 0..count {
        let flags = draw.one(&[0u32, 0, 0, 0, 1, 2]);
        let slot = draw.one(&[0u32, 1, 2, 3, 4]);
        let words = if on == Kind::Viommu { vec![flags, draw.one(&NUMBERS) as u32, slot] } else { vec![flags, slot] };
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.resize(entry as usize, draw.one(&[0, 0, 1]));
        entries.extend(bytes);
    }
    let data_type = draw.one(&[0xdead_beef, 0xdead_beef, 0xdead_beef, 0xdead_beef, 0xdad_beef, 1]);
    let ioctl = Ioctl::of(Command::HwptInvalidate).id(4, object(on, draw)).word(16, data_type).length(20, entry);
    ioctl.length(24, count).lend(8, entries)
}

pub(super) fn fault_queue() -> Ioctl {
    Ioctl::of(Command::FaultQueueAlloc).word(4, 0).makes(Kind::Fault)
}

pub(super) fn viommu(draw: &mut Draw) -> Ioctl {
    let ioctl = Ioctl::of(Command::ViommuAlloc)
        .word(8, draw.one(&[selftest::VIOMMU_TYPE, selftest::VIOMMU_TYPE, selftest::VIOMMU_TYPE, 1]));
    let parent = draw.one(&[Kind::Parent, Kind::Parent, Kind::Parent, Kind::Paging]);
    let ioctl = ioctl.id(12, object(Kind::Idev, draw)).id(16, object(parent, draw)).makes(Kind::Viommu);
    if draw.once_in(3) { ioctl.length(24, draw.one(&[24, 24, 8, 4])).lend(32, vec![7; 24]) } else { ioctl }
}

/// What guests call their devices.
pub(super) const NUMBERS: [u64; 4] = [0x99, 0x88, 0, 0x99];

pub(super) fn vdevice(draw: &mut Draw) -> Ioctl {
    let ioctl = Ioctl::of(Command::VdeviceAlloc).id(4, object(Kind::Viommu, draw)).id(8, object(Kind::Idev, draw));
    ioctl.long(16, draw.one(&NUMBERS)).makes(Kind::Vdevice)
}

pub(super) fn veventq(draw: &mut Draw) -> Ioctl {
    let r#type = draw.one(&[selftest::VEVENTQ_TYPE, selftest::VEVENTQ_TYPE, selftest::VEVENTQ_TYPE, 0, 5]);
    let ioctl = Ioctl::of(Command::VeventqAlloc).word(4, 0).id(8, object(Kind::Viommu, draw)).word(12, r#type);
    ioctl.word(16, draw.one(&[1, 2, 2, 3, 0])).makes(Kind::Veventq)
}

fn hw_queue(draw: &mut Draw) -> Ioctl {
    let (first, count) = pages(draw);
    let r#type = draw.one(&[selftest::HW_QUEUE_TYPE, selftest::HW_QUEUE_TYPE, selftest::HW_QUEUE_TYPE, 0]);
    let ioctl = Ioctl::of(Command::HwQueueAlloc).word(4, 0).id(8, object(Kind::Viommu, draw)).word(12, r#type);
    // More than a page need not be in one piece of physical memory.
    let length = draw.one(&[PAGE, PAGE, 2048, 0, u64::MAX - count]);
    ioctl.word(16, draw.below(3)).long(24, IOVA + first * PAGE).long(32, length).makes(Kind::HwQueue)
}

//! Plans: first a graph of objects as a VMM makes it, then anything.

use super::commands::{self, anything};
use super::draw::Draw;
use super::mock;
use super::step::{Ioctl, IoctlStep, Kind, Plan, Size, Step, Value};

/// The plan of a sequence.
pub fn plan(seed: u64, number: u64) -> Plan {
    let draw = &mut Draw::of(seed, number);
    let mut plan = graph(draw);
    for _ in 0..8 + draw.below(40) {
        let step = match draw.below(20) {
            0..3 => event(draw),
            3..10 => mock::anything(draw).step(),
            _ => anything(draw).step(),
        };
        plan.push(step);
    }
    plan.into_iter().map(|step| if draw.once_in(14) { spoilt(step, draw) } else { step }).collect()
}

/// A device from its IOAS to a nested HWPT, as far as it gets.
fn graph(draw: &mut Draw) -> Plan {
    let flags = draw.one(&[0, 0, 4, 4, 1, 5]);
    let pasid = if flags & 4 != 0 && !draw.once_in(3) { 8 } else { 0 };
    let ways = [
        commands::ioas_alloc(),
        mock::device(Value::Object(Kind::Ioas, 0), flags),
        commands::map(draw),
        commands::hwpt(1 | pasid, Kind::Parent),
        commands::viommu(draw),
        commands::nested(draw.one(&[Kind::Parent, Kind::Viommu]), pasid, draw),
        commands::vdevice(draw),
        commands::veventq(draw),
        commands::fault_queue(),
        commands::hwpt(pasid, Kind::Paging),
        mock::replace(Value::Object(Kind::Nested, 0)),
    ];
    let length = 2 + draw.below(10) as usize;
    ways.into_iter().take(length).map(Ioctl::step).collect()
}

fn event(draw: &mut Draw) -> Step {
    let file = draw.below(4);
    match draw.below(10) {
        0..4 => Step::Read(file, draw.one(&[0, 7, 8, 12, 24, 39, 40, 80, 120, 400])),
        4..6 => Step::Write(file, draw.below(4), draw.one(&[0, 0, 1, 2])),
        6..9 => Step::Poll(file),
        _ => Step::Close(file),
    }
}

/// Something wrong with a step.
fn spoilt(step: Step, draw: &mut Draw) -> Step {
    let Step::Ioctl(IoctlStep(mut ioctl)) = step else { return step };
    match draw.below(12) {
        0 => ioctl.size = Size::Null,
        1 => ioctl.size = Size::TooSmall,
        2 => ioctl.size = Size::Minimum,
        3 => ioctl.size = Size::Longer(draw.one(&[1, 4, 8, 100]), 0),
        4 => ioctl.size = Size::Longer(draw.one(&[1, 4, 8, 100]), 1),
        5 => {
            // What is behind a pointer is nowhere.
            if let Some((offset, _)) = ioctl.lent.pop() {
                ioctl = ioctl.long(offset, 1 << 63);
            }
        }
        _ => {
            let free: Vec<_> = (0..ioctl.fields.len()).filter(|at| ioctl.fields[*at].free).collect();
            if !free.is_empty() {
                ioctl.fields[draw.one(&free)].value = match draw.below(4) {
                    0 => Value::Number(draw.one(&[0, 1, 2, 4, 8, 0x10, 0x8000_0000, 0xffff_ffff])),
                    _ => Value::Object(draw.one(&ALL), draw.below(8)),
                };
            }
        }
    }
    // With less of an argument, its reply may not tell what it made.
    if ioctl.size == Size::Minimum || ioctl.size == Size::TooSmall {
        ioctl.fields.retain(|field| field.offset + field.bytes <= ioctl.command.minimum());
        ioctl.lent.retain(|(offset, _)| offset + 8 <= ioctl.command.minimum());
    }
    ioctl.step()
}

const ALL: [Kind; 12] = [
    Kind::Ioas,
    Kind::Stdev,
    Kind::Idev,
    Kind::Paging,
    Kind::Parent,
    Kind::Nested,
    Kind::Viommu,
    Kind::Vdevice,
    Kind::Veventq,
    Kind::Fault,
    Kind::HwQueue,
    Kind::Any,
];

/// Something to attach to.
pub(super) fn attachable(draw: &mut Draw) -> Value {
    let kinds = [Kind::Ioas, Kind::Paging, Kind::Parent, Kind::Nested, Kind::Nested, Kind::Nested, Kind::Any];
    Value::Object(draw.one(&kinds), draw.below(4))
}

/// Whatever there is.
pub(super) fn whatever(draw: &mut Draw) -> Value {
    Value::Object(draw.one(&ALL), draw.below(8))
}

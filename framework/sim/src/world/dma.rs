//! Devices: each translates random addresses at random moments, and every answer is judged at once.

use super::World;
use crate::draw::Draw;
use crate::guest::{GROUPS, LOAN, LOAN_SIZE, RAM, RAM_SIZE, SLOTS, slot};
use crate::plan::DevicePlan;
use std::sync::atomic::Ordering;
use std::time::Duration;
use viommu::plugin::{Answer, Request};
use viommu::simulation::{self, Simulation};

/// Between two looks, at most, in microseconds.
const PAUSE: u32 = 60;
/// So often in a hundred, where something changed lately.
const LATELY: u32 = 75;
/// Requests at once.
const BURST: u32 = 6;

impl World {
    pub(super) fn spawn_device(&self, vm: u32, device: &DevicePlan, simulation: &Simulation) {
        let (world, device) = (self.clone(), device.clone());
        simulation.spawn(format!("vm{vm} device{}", device.number), move || {
            let mut draw = Draw::new(device.seed, 5);
            while world.left.load(Ordering::SeqCst) > 0 {
                for _ in 0..BURST {
                    world.request(vm, &device, &mut draw);
                }
                simulation::sleep(Duration::from_micros(1 + u64::from(draw.below(PAUSE))));
            }
        });
    }

    fn request(&self, vm: u32, device: &DevicePlan, draw: &mut Draw) {
        let flags = if draw.chance(25) { Request::SPECULATIVE } else { 0 };
        let mut request = Request {
            stream: device.stream,
            pasid: u32::MAX,
            iova: self.iova(vm, device.virt_id, draw),
            access: draw.range(1, 2),
            flags,
        };
        let second = self.platform.second.as_ref();
        // What the second has cached it only shows where it is asked again: before a change, and behind it.
        let aim = second.and_then(|_| self.oracle.take_untried(vm, device.virt_id));
        if let Some((base, log2)) = aim {
            request.iova = base + (request.iova & ((1 << log2) - 1));
            self.oracle.count("second.aimed");
        }
        let second = second.filter(|second| second.wants(aim.is_some()));
        if second.is_some() {
            // A whole access, and nothing ahead of the device.
            (request.iova, request.flags) = (request.iova & !3, 0);
        }
        let mut answers = [Answer::default()];
        match self.platform.hardware.translate(&[request], &mut answers) {
            Ok(1) => {
                self.oracle.judge(vm, device.virt_id, &request, &answers[0]);
                let opinion = second.and_then(|second| second.dma(&request, &answers[0], aim.is_some()));
                if let Some(opinion) = opinion {
                    self.oracle.judge_second(vm, device.virt_id, &request, &answers[0], &opinion);
                }
            }
            other => panic!("the model does not answer: {other:?}"),
        }
    }

    /// Mostly where something changed lately.
    fn iova(&self, vm: u32, virt_id: u32, draw: &mut Draw) -> u64 {
        if !draw.chance(LATELY) {
            return anywhere(draw);
        }
        match self.lately(vm, virt_id, draw) {
            Some((base, log2)) => base + draw.word() % (1 << log2),
            None => anywhere(draw),
        }
    }

    /// A page that changed lately, rather one of the newest.
    pub(super) fn lately(&self, vm: u32, virt_id: u32, draw: &mut Draw) -> Option<(u64, u8)> {
        let changed = self.oracle.changed_lately(vm, virt_id);
        let below = |draw: &mut Draw| draw.below(changed.len() as u32);
        let age = below(draw).min(below(draw));
        changed.get(age as usize).copied()
    }
}

/// Mostly what a guest may have mapped.
fn anywhere(draw: &mut Draw) -> u64 {
    let inside = |draw: &mut Draw, base: u64, size: u64| base + draw.word() % size;
    match draw.weighted(&[(14, 0), (3, 1), (2, 2), (1, 3), (1, 4)]) {
        0 => slot(draw.below(SLOTS as u32) as usize) + u64::from(draw.below(0x1000)),
        1 => {
            let group = draw.pick(&GROUPS);
            inside(draw, group, 0x20_0000)
        }
        2 => inside(draw, RAM, RAM_SIZE),
        3 => inside(draw, LOAN, LOAN_SIZE),
        _ => draw.word() >> draw.below(64),
    }
}

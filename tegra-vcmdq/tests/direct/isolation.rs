//! Whatever a guest writes into its page and its queues, it is the guest's own affair.

use crate::machine::{Guest, Machine, VA};
use tegra_vcmdq::spec::{PAGE, page0};
use viommu_plugin::{Driver, Hardware};
use viommu_plugin_check::Random;

/// Commands near the ones that are taken, and anything.
fn command(random: &mut Random) -> [u64; 2] {
    let opcode = match random.below(4) {
        0 => random.below(256),
        _ => [0x10, 0x11, 0x12, 0x28, 0x30, 0x40, 0x46, 0x46][random.below(8) as usize],
    };
    let wide = if random.below(2) == 0 { random.next() } else { random.below(16) << 32 };
    [wide & !0xff | opcode, if random.below(2) == 0 { random.next() } else { VA }]
}

#[test]
fn a_hostile_guest_reaches_nothing_of_another() {
    for seed in 1..=20u64 {
        let mut random = Random::new(seed);
        let (machine, mut driver) = Machine::driven(true);
        let victim = Guest::new(&machine, &mut driver, 7, 3);
        let mut hostile = Guest::new(&machine, &mut driver, 8, 3);
        hostile.queue(&mut driver, 0);
        hostile.queue(&mut driver, 1);
        assert_eq!(victim.reaches(), Some(0x1_0000));
        // Any invalidation that touched the victim would show this.
        victim.map(VA, 0x1_1000);
        for round in 0..400 {
            let index = random.below(2) as u32;
            match random.below(4) {
                0 => {
                    let at = hostile.interface.page + random.below(PAGE / 4) * 4;
                    machine.mmio_write(at, 4, random.next());
                }
                1 => hostile.skip(index),
                2 => hostile.write(index, page0::CONFIG, random.below(2) as u32),
                _ => {
                    let count = random.below(6);
                    let commands: Vec<_> = (0..count).map(|_| command(&mut random)).collect();
                    hostile.say(index, &commands);
                }
            }
            assert_eq!(victim.reaches(), Some(0x1_0000), "seed {seed}, round {round}");
        }
        machine.issue(&[]).unwrap();
        driver.interface_destroy(hostile.interface.handle).unwrap();
        // The victim's own queues work as if nothing had been.
        let mut victim = victim;
        victim.queue(&mut driver, 0);
        assert!(victim.say(0, &[crate::machine::tlbi_asid(), crate::machine::sync()]), "seed {seed}");
        assert!(victim.say(0, &[crate::machine::atc_inv(3), crate::machine::sync()]), "seed {seed}");
        assert_eq!(victim.reaches(), Some(0x1_1000), "seed {seed}");
        machine.take_irqs();
    }
}
